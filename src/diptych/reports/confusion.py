"""Which classes a classifier takes for which."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from diptych.reports.checks import check_labels, check_not_empty
from diptych.reports.style import FAINT, INK, TEXT_POINTS, new_figure, styled

_ERRORS = LinearSegmentedColormap.from_list("errors", ["#fff1e2", "#f0883e", "#bd3a00"])
_RIGHT = "#dcebf9"


def confusion_matrix(
    labels: Int[np.ndarray, " image"], predictions: Int[np.ndarray, " image"], num_classes: int
) -> Int[np.ndarray, "true predicted"]:
    """Count the images of each true class (row) by predicted class (column).

    Raises:
        ReportError: when there is no image, or a label or prediction is no class.
    """
    check_not_empty("labels", len(labels))
    check_labels("labels", labels, num_classes)
    check_labels("predictions", predictions, num_classes)
    cells = labels.astype(np.int64) * num_classes + predictions
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


@styled()
def confusion_matrix_figure(
    labels: Int[np.ndarray, " image"],
    predictions: Int[np.ndarray, " image"],
    class_names: Sequence[str],
) -> Figure:
    """Draw the counts; the colour scale is that of the errors, so that right answers drown none.

    Args:
        labels: True classes, counted from 0.
        predictions: Predicted classes, in the same order.
        class_names: One per class.

    Raises:
        ReportError: when there is no image, or a label or prediction is no class.
    """
    counts = confusion_matrix(labels, predictions, len(class_names))
    cell_inches = max(0.17, min(0.55, 11 / len(class_names)))
    side = cell_inches * len(class_names)
    figure = new_figure(max(side + 2.2, 4.8), side + 1.5)
    axes = figure.add_subplot()
    _draw_colours(axes, counts)
    _draw_counts(axes, counts, points=_count_points(counts, cell_inches))
    _draw_names(axes, counts, class_names)
    num_right = int(counts.trace())
    axes.set_title(
        f"Confusion matrix: {num_right:,} of {len(labels):,} right ({num_right / len(labels):.2%})"
    )
    return figure


def _draw_colours(axes: Axes, counts: np.ndarray) -> None:
    errors = counts * ~np.eye(len(counts), dtype=bool)
    shown = np.ma.masked_equal(errors, 0)
    axes.imshow(shown, cmap=_ERRORS, vmin=1, vmax=max(2, errors.max()))
    right = np.ma.masked_equal(np.eye(len(counts)), 0)
    axes.imshow(right, cmap=LinearSegmentedColormap.from_list("right", [_RIGHT, _RIGHT]))
    edges = np.arange(len(counts) + 1) - 0.5
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.grid(which="major", visible=False)
    axes.grid(which="minor", color=FAINT, linewidth=0.6)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)


def _count_points(counts: np.ndarray, cell_inches: float) -> float:
    """Return the largest font size, up to the ordinary one, at which a count fits its cell."""
    digit_width = 0.64  # of the font size
    num_digits = len(str(counts.max()))
    return min(TEXT_POINTS, 0.9 * 72 * cell_inches / (digit_width * num_digits))


def _draw_counts(axes: Axes, counts: np.ndarray, points: float) -> None:
    largest_error = (counts * ~np.eye(len(counts), dtype=bool)).max()
    for true, predicted in np.argwhere(counts):
        count = counts[true, predicted]
        dark = true != predicted and count > 0.6 * largest_error
        colour = "white" if dark and largest_error > 1 else INK
        axes.text(
            predicted, true, f"{count}", ha="center", va="center", color=colour, fontsize=points
        )


def _draw_names(axes: Axes, counts: np.ndarray, class_names: Sequence[str]) -> None:
    ticks = np.arange(len(class_names))
    upright = max(map(len, class_names)) <= 2
    axes.set_xticks(ticks, class_names, rotation=0 if upright else 90)
    axes.set_yticks(ticks, class_names)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    recall_axis = axes.secondary_yaxis("right")
    recall_axis.set_yticks(ticks, [_recall(row, true) for true, row in enumerate(counts)])
    recall_axis.tick_params(length=0)
    recall_axis.spines[:].set_visible(False)
    recall_axis.set_ylabel("right, % of the true class")


def _recall(row: np.ndarray, true: int) -> str:
    return f"{100 * row[true] / row.sum():.1f}" if row.sum() else "–"
