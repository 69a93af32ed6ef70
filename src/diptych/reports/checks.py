"""What a report may be made of; wrong values are refused before anything is drawn."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from diptych.errors import UserError


class ReportError(UserError):
    """The values to be shown are missing, out of range or do not belong together."""


def check_not_empty(name: str, num_values: int) -> None:
    """Raise ReportError when there is nothing to show."""
    if num_values == 0:
        raise ReportError(f"{name}: must hold at least 1 (got 0)")


def check_class_names(class_names: Sequence[str], num_classes: int) -> None:
    """Raise ReportError unless there is a name for every class."""
    if len(class_names) != num_classes:
        raise ReportError(
            f"class_names: must be {num_classes}, one per class (got {len(class_names)})"
        )


def check_labels(name: str, labels: Int[np.ndarray, " image"], num_classes: int) -> None:
    """Raise ReportError unless every label is a class number, counted from 0."""
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if wrong.size:
        raise ReportError(f"{name}: must be in 0..{num_classes - 1} (got {wrong[0]})")


def check_probabilities(name: str, probabilities: Float[np.ndarray, "image class"]) -> None:
    """Raise ReportError unless every row is a distribution, to within low-precision rounding."""
    tolerance = 1e-2
    inside = (probabilities >= -tolerance) & (probabilities <= 1 + tolerance)  # False for NaN
    if not inside.all():
        raise ReportError(f"{name}: must be in [0, 1] (got {probabilities[~inside][0]})")
    sums = probabilities.sum(axis=1, dtype=np.float64)
    off = np.abs(sums - 1) > tolerance
    if off.any():
        raise ReportError(f"{name}: must sum to 1 for every image (got {sums[off][0]:.4g})")


def check_finite(name: str, values: Float[np.ndarray, "..."]) -> None:
    """Raise ReportError when a value is NaN or infinite."""
    wrong = values[~np.isfinite(values)]
    if wrong.size:
        raise ReportError(f"{name}: must be finite (got {wrong[0]})")
