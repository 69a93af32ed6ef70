"""What evaluation and generation are told."""

from typing import Annotated

from pydantic import Field, model_validator

from diptych.optimization.params import Count, Seed
from diptych.params import Params

FigureSeed = Annotated[int, Field(ge=0, le=10**15)]
"""A seed that is a figure too: the gate believes those up to 1e15, which a float tells apart."""


class EvaluateParams(Params):
    """Section `evaluate` of params.yaml."""

    num_importance_samples: Count
    """Samples of z per image in the likelihood estimate."""

    num_mistakes: Count
    """Most confident mistakes shown."""

    num_reconstructions: Count
    """Test images shown beside their reconstructions, as far as there are so many."""

    seed: FigureSeed
    """Of the test set's binarisation and of all noise."""


class GenerateSamplesParams(Params):
    """Section `generate_samples` of params.yaml."""

    num_samples: Count
    """Images drawn from the prior and measured."""

    num_shown: Count
    """Of those, images shown."""

    manifold_side: Annotated[int, Field(ge=2, le=100)]
    """Rows and columns of the decoded manifold."""

    num_interpolations: Count
    """Pairs of test images, as far as there are so many."""

    num_interpolation_steps: Annotated[int, Field(ge=2, le=100)]
    """Decoded images per pair, end points included."""

    num_per_class: Count
    """Images in each class's row."""

    acceptance_confidence: Annotated[float, Field(ge=0, le=1)]
    """The classifier accepts a sample from this confidence on."""

    seed: Seed
    """Of latents and of the choice of images."""

    @model_validator(mode="after")
    def _shows_what_it_draws(self) -> "GenerateSamplesParams":
        if self.num_shown > self.num_samples:
            raise ValueError(f"num_shown must be <= num_samples = {self.num_samples}")
        return self
