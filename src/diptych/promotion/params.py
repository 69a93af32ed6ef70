"""The policy of the gate: floors, margins, and what counts as better."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from diptych.params import Params

Share = Annotated[float, Field(ge=0, le=1)]
Margin = Annotated[float, Field(gt=0, lt=1)]
Nats = Annotated[float, Field(gt=0, le=1_000_000)]


def _prefix(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", text):
        raise ValueError("must be 1 to 100 letters, digits, - and _")
    return text


def _figure_key(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*", text):
        raise ValueError("must be a figure's key, as num_parameters")
    return text


class PromotionParams(Params):
    """Section `promotion` of params.yaml. All figures are those on the test set."""

    prefix: Annotated[str, AfterValidator(_prefix)]
    """Registered models are called `<prefix>-cnn`, `<prefix>-vae` and `<prefix>-pair`."""

    min_cnn_accuracy: Share
    """Floor of the classifier's accuracy, alone and in a pair, as all floors of members."""

    max_cnn_ece: Share
    """Limit of the classifier's calibrated expected calibration error."""

    max_cnn_nll_nats: Nats
    """Limit of the classifier's calibrated NLL, per image."""

    max_vae_nll_nats: Nats
    """Limit of the autoencoder's NLL, per image."""

    min_vae_active_units: Annotated[int, Field(ge=0, le=1_000_000)]
    """Floor of the number of latents that carry information."""

    max_pair_abstention_share: Share
    """Limit of the share of test images that the pair does not answer."""

    min_pair_novelty_auroc: Share
    """Floor of the AUROC against each kind of novel images but rotated ones."""

    min_pair_novel_abstention_share: Share
    """Floor of the share of each kind of novel images but rotated ones that the pair declines."""

    min_pair_rotated_auroc: Share
    """Floor of the AUROC against rotated images, some of which look like others unrotated."""

    max_class_accuracy_loss: Share
    """How much less of one class's images than the champion a classifier may get right."""

    significance_level: Annotated[float, Field(gt=0, le=0.5)]
    """One-sided, of each test against the champion."""

    max_accuracy_loss: Margin
    """A classifier counts as not worse when a loss of so much accuracy is ruled out."""

    max_nll_loss_nats: Nats
    """An autoencoder counts as not worse when a loss of so many nats per image is ruled out."""

    num_bootstrap_resamples: Annotated[int, Field(ge=100, le=1_000_000)]
    """Resamples of the test images behind a p-value of the autoencoder."""

    secondary_figure: Annotated[str, AfterValidator(_figure_key)]
    """Where a model that is not worse has to be better, that is, smaller; all families have it."""

    @model_validator(mode="after")
    def _resamples_can_reach_the_level(self) -> "PromotionParams":
        # The smallest p-value is 1 / (resamples + 1); a pair tests each member at half the level.
        if (self.num_bootstrap_resamples + 1) * self.significance_level < 2:
            raise ValueError(
                "num_bootstrap_resamples must be >= 2 / significance_level = "
                f"{2 / self.significance_level:.4g}"
            )
        return self
