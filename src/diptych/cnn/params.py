"""What the classifier's training is told."""

from typing import Annotated, Literal

from pydantic import Field

from diptych.optimization.params import NonNegative, OptimizationParams, Width


class CnnTrainingParams(OptimizationParams):
    """Section `train_cnn` of params.yaml."""

    architecture: Literal["compact", "article"]
    """`compact`: this project's; `article`: two poolings and 93,322 parameters at 28 x 28."""

    width: Width
    """Channels of the first block of `compact`; the later ones have twice as many."""

    num_blocks: Annotated[int, Field(ge=1, le=100)]
    """Convolutions of `compact` after the first."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    """Share of the target's probability that is spread over all classes."""

    max_shift_pixels: NonNegative
    """Augmentation: largest shift in each direction, in pixels."""

    max_rotation_degrees: Annotated[float, Field(ge=0, le=180)]
    """Augmentation: largest rotation either way, in degrees."""

    max_scale_change: Annotated[float, Field(ge=0, lt=1)]
    """Augmentation: largest relative change of width and of height."""

    view_shift_pixels: Annotated[int, Field(ge=0, le=100)]
    """Prediction: logits are means over the image and its shifts by so many pixels in the four
    directions; 0 for the image alone."""
