"""What training and evaluation hand to a tracker, as events."""

import io
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from diptych.optimization.progress import EpochReport
from diptych.tracking.events import FigureLogged, ImageLogged, MetricsLogged
from diptych.tracking.figures import log_curves, log_epoch, numeric_figures
from diptych.tracking.tracker import MemoryTracker

ROWS = [{"epoch": epoch, "validation_nll_nats": 1 / epoch} for epoch in (1, 2, 3)]


@pytest.mark.parametrize(("channels", "shown"), [(1, 1), (2, 1), (3, 3), (4, 1)])
def test_images_of_any_number_of_channels_can_be_seen(channels: int, shown: int) -> None:
    images = torch.arange(4 * channels, dtype=torch.uint8).reshape(1, 1, channels, 2, 2)
    tracker = MemoryTracker()
    log_epoch(tracker, EpochReport(2, 3, {"loss": 0.5}, {"reconstructions": images}))
    figures, picture = tracker.events
    assert isinstance(figures, MetricsLogged)
    assert (figures.metrics, figures.step) == ({"loss": 0.5}, 2)
    assert isinstance(picture, ImageLogged)
    assert (picture.key, picture.step) == ("reconstructions", 2)
    pixels = np.asarray(Image.open(io.BytesIO(picture.png))).reshape(2, 2, shown)
    np.testing.assert_array_equal(pixels, images[0, 0, :shown].permute(1, 2, 0))


def test_curves_are_an_artifact_that_depends_on_rows_title_and_epoch_kept() -> None:
    tracker = MemoryTracker()
    for rows, title, best_epoch in [
        (ROWS, "a", 2),
        (ROWS, "a", 2),
        (ROWS[:2], "a", 2),
        (ROWS, "b", 2),
        (ROWS, "a", None),
    ]:
        log_curves(tracker, rows, title, best_epoch)
    pngs = [event.png for event in tracker.events if isinstance(event, FigureLogged)]
    assert {event.path for event in tracker.events if isinstance(event, FigureLogged)} == {
        "curves.png"
    }
    assert pngs[0] == pngs[1]
    assert len(set(pngs)) == 4
    assert Image.open(io.BytesIO(pngs[0])).format == "PNG"


def test_numbers_are_found_at_any_depth_and_nothing_else_is() -> None:
    figures = {"a": 1, "b": {"c": 0.5, "d": {"e": 2}}, "list": [1], "text": "x", "flag": True}
    assert numeric_figures(figures) == {"a": 1.0, "b.c": 0.5, "b.d.e": 2.0}


def test_a_whole_number_that_no_float_holds_is_infinite_as_one_with_an_exponent_is() -> None:
    text = f'{{"a": 1{"0" * 400}, "b": -1{"0" * 400}, "c": 1e400, "d": 1{"0" * 300}}}'
    assert numeric_figures(json.loads(text)) == {
        "a": math.inf,
        "b": -math.inf,
        "c": math.inf,
        "d": 1e300,
    }


def test_a_stage_starts_without_any_drawing_library() -> None:
    code = "import sys, diptych.tracking.figures; print({'matplotlib', 'pandas'} & {*sys.modules})"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"
