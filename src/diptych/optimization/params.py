"""What every training is told."""

from typing import Annotated, Literal

from pydantic import Field

from diptych.optimization.schedules import Schedule
from diptych.params import Params

Positive = Annotated[float, Field(gt=0, le=1e38)]  # what float32 holds
NonNegative = Annotated[float, Field(ge=0, le=1_000_000)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Width = Annotated[int, Field(ge=1, le=10_000)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class OptimizationParams(Params):
    """How a model's weights are fitted."""

    num_epochs: Count
    """Passes over the training images."""

    batch_size: Count
    """Images per optimiser step, about: an epoch is cut into steps of equal size."""

    optimizer: Literal["muon", "adamw"]
    """`muon`: Muon for hidden weight matrices and kernels, AdamW for the rest."""

    learning_rate: Positive
    """Peak learning rate of AdamW."""

    muon_learning_rate: Positive
    """Peak learning rate of Muon; not used by `adamw`."""

    weight_decay: NonNegative
    """Decoupled weight decay of matrices and kernels, per unit of learning rate."""

    schedule: Schedule
    """Course of the learning rate after the warm-up."""

    warmup_fraction: Annotated[float, Field(ge=0, lt=1)]
    """Share of all steps in which the learning rate rises from 0 to its peak."""

    seed: Seed
    """Of initial weights, order of images, augmentation and noise."""


class CheckpointParams(Params):
    """Section `checkpoints` of params.yaml. It decides no output, so no stage depends on it."""

    interval_seconds: Annotated[float, Field(gt=0)]
    """Time between two states of a training on disk: what a kill can cost at most."""
