"""What the classifier's training is told."""

from typing import Annotated, Literal

from pydantic import Field

from diptych.optimization.params import NonNegative, OptimizationParams, Width


class CnnTrainingParams(OptimizationParams):
    """Section `train_cnn` of params.yaml."""

    architecture: Literal["compact", "deep", "article"]
    """`compact`: halves the images first; `deep`: also looks at them in full; `article`: two
    poolings and 93,322 parameters at 28 x 28."""

    width: Width
    """Channels up to the first pooling, and twice as many after each; the first convolution of
    `compact` has half as many, though no fewer than the smaller of this and 16."""

    num_blocks: Annotated[int, Field(ge=1, le=100)]
    """Convolutions of `compact` at a quarter of the images' size, of `deep` at each size."""

    num_members: Annotated[int, Field(ge=1, le=100)]
    """Networks trained side by side on the same batches, each on its own loss from its own initial
    weights; a prediction averages their logits."""

    pruned_fraction: Annotated[float, Field(ge=0, lt=1)]
    """Share of the images, of those that are easy by now, that all epochs but the first leave
    out."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    """Share of the target's probability that is spread over all classes."""

    max_shift_pixels: NonNegative
    """Augmentation: largest shift in each direction, in pixels."""

    max_rotation_degrees: Annotated[float, Field(ge=0, le=180)]
    """Augmentation: largest rotation either way, in degrees."""

    max_scale_change: Annotated[float, Field(ge=0, lt=1)]
    """Augmentation: largest relative change of width and of height."""

    mirror: bool
    """Augmentation: half of the images are mirrored left to right; predictions see both sides."""

    view_shift_pixels: NonNegative
    """Prediction: logits are means over the image and its views; four are shifted by so much along
    both axes. 0: none of them."""

    view_rotation_degrees: Annotated[float, Field(ge=0, le=180)]
    """Prediction: two views are rotated by so much, one either way. 0: none of them."""

    view_scale_change: Annotated[float, Field(ge=0, lt=1)]
    """Prediction: two views are scaled by so much, one up and one down. 0: none of them."""
