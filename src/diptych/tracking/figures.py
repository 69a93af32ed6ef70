"""Reports and figures as MLflow shows them."""

from collections.abc import Mapping
from typing import Any

from diptych.optimization.progress import EpochReport
from diptych.reports.grids import tile_images
from diptych.tracking.tracker import Tracker, flatten


def log_epoch(tracker: Tracker, report: EpochReport) -> None:
    """Log figures and pictures at the epoch's number as step, under the report's names."""
    tracker.log_metrics(report.metrics, step=report.epoch)
    for name, images in report.images.items():
        tracker.log_image(name, tile_images(images.numpy()), step=report.epoch)


def numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of nested figures under dotted keys; lists and text are left out."""
    return {
        key: float(value)
        for key, value in flatten(figures).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
