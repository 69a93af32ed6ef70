"""Learning-rate schedules: pure functions of the progress of a training."""

import math
from typing import Literal

Schedule = Literal["one_cycle", "cosine", "constant"]


def learning_rate_factor(schedule: Schedule, progress: float, warmup_fraction: float) -> float:
    """Return what the peak learning rate is multiplied with.

    Every schedule first rises linearly from 0 to 1 over the warm-up.

    Args:
        schedule: `one_cycle` then falls linearly to 0, `cosine` along half a cosine to 0, and
            `constant` stays at 1.
        progress: Share of all optimiser steps done, in [0, 1].
        warmup_fraction: Share of all steps that the warm-up takes, in [0, 1).

    Returns:
        A factor in [0, 1].
    """
    if progress < warmup_fraction:
        return progress / warmup_fraction
    remaining = (1 - progress) / (1 - warmup_fraction)
    if schedule == "one_cycle":
        return remaining
    if schedule == "cosine":
        return 0.5 * (1 - math.cos(math.pi * remaining))
    return 1.0
