"""What training tells the outside, once per epoch."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from diptych.errors import UserError


@dataclass(frozen=True, slots=True)
class EpochReport:
    """The state of a training after an epoch.

    Attributes:
        epoch: 1-based number of the epoch just finished.
        num_epochs: Number of epochs in all.
        metrics: Scalars under stable names that carry unit and reduction.
        images: uint8 tensors [row, column, channel, height, width] under stable names.
    """

    epoch: int
    num_epochs: int
    metrics: Mapping[str, float]
    images: Mapping[str, Tensor] = field(default_factory=dict)


OnEpoch = Callable[[EpochReport], None]


class DivergedError(UserError):
    """The loss is no finite number any more."""


def require_finite(loss: Tensor | float, where: str) -> None:
    """Stop a training whose loss is NaN or infinite.

    Reading a loss waits for the device. On a CPU that is free, and every step is checked before
    its update; elsewhere an epoch's total is, after its last step.

    Raises:
        DivergedError: naming where.
    """
    value = loss.item() if isinstance(loss, Tensor) else loss
    if not math.isfinite(value):
        raise DivergedError(f"{where}: the loss must be finite (got {value}); lower learning_rate")
