"""Reports and figures as MLflow shows them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from diptych.optimization.progress import EpochReport
from diptych.params import dotted
from diptych.reports.grids import tile_images
from diptych.tracking.tracker import Tracker


def log_epoch(tracker: Tracker, report: EpochReport) -> None:
    """Log figures and pictures at the epoch's number as step, under the report's names.

    Of images with neither 1 nor 3 channels, the first channel is shown, in grey.
    """
    tracker.log_metrics(report.metrics, step=report.epoch)
    for name, images in report.images.items():
        tracker.log_image(name, tile_images(_displayable(images).numpy()), step=report.epoch)


def log_curves(
    tracker: Tracker,
    rows: Sequence[Mapping[str, float | int]],
    title: str,
    best_epoch: int | None = None,
) -> None:
    """Log a finished training, drawn epoch by epoch, as the artifact `curves.png`.

    Args:
        tracker: What is told.
        rows: One per epoch: `epoch`, counted from 1, and quantities whose names end in their unit.
        title: One line above all.
        best_epoch: The epoch that was kept; None for none.
    """
    # Together they take a second to import, which a stage's start need not wait for.
    import pandas as pd

    from diptych.reports.curves import curves_figure
    from diptych.reports.style import figure_png

    figure = curves_figure(pd.DataFrame(list(rows)), title, best_epoch)
    tracker.log_figure(figure_png(figure), "curves.png")


def _displayable(images: Tensor) -> Tensor:
    """Return what a picture can show of images [row, column, channel, height, width]."""
    return images if images.shape[2] in (1, 3) else images[:, :, :1]


def numeric_figures(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of nested figures under dotted keys; lists and text are left out.

    A whole number that no float can hold is infinite, as one with an exponent is when it is read.
    """
    return {
        key: _as_float(value)
        for key, value in dotted(figures).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _as_float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
