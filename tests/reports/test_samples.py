"""Pictures of samples: captions say what each row and column is."""

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from diptych.reports.checks import ReportError
from diptych.reports.samples import (
    class_samples_figure,
    interpolations_figure,
    manifold_figure,
    prior_figure,
)
from diptych.reports.style import figure_png


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 250, shape, dtype=np.uint8)


def texts_of(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts if text.get_text()]


@pytest.mark.parametrize("channels", [1, 3])
def test_each_kind_of_figure_is_a_function_of_its_values(channels):
    grid, row = random_images(2, 3, channels, 4, 4), random_images(2, channels, 4, 4)
    makers: list[Callable[[], Figure]] = [
        lambda: prior_figure(row),
        lambda: manifold_figure(grid, np.array([0.0, 1.0]), np.array([-1.0, 0.0, 1.0])),
        lambda: interpolations_figure(row, grid, row),
        lambda: class_samples_figure(grid, ["cat", "dog"]),
    ]
    for make in makers:
        assert figure_png(make()) == figure_png(make())


def test_the_manifold_is_labelled_with_its_coordinates():
    figure = manifold_figure(
        random_images(2, 3, 1, 4, 4), np.array([-1.5, 0.5]), np.array([-2.0, 0.0, 2.0]), "a plane"
    )
    assert texts_of(figure)[1:] == ["a plane", "−1.5", "+0.5", "−2.0", "+0.0", "+2.0"]


def test_interpolations_run_from_the_framed_start_to_the_framed_end():
    starts, ends = random_images(2, 1, 4, 4), random_images(2, 1, 4, 4)
    figure = interpolations_figure(starts, random_images(2, 3, 1, 4, 4), ends)
    assert texts_of(figure)[2:] == ["start", "0%", "50%", "100%", "end"]
    (axes,) = figure.axes
    frames = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    captions = {text.get_text(): text.get_position()[0] for text in axes.texts}
    half_width = frames[0].get_width() / 2
    columns = [captions["start"] - half_width] * 2 + [captions["end"] - half_width] * 2
    assert sorted(frame.get_x() for frame in frames) == columns


def test_each_class_names_its_row():
    figure = class_samples_figure(random_images(2, 3, 1, 4, 4), ["cat", "dog"])
    assert texts_of(figure)[1:] == ["cat", "dog"]


def test_values_that_do_not_belong_together_are_refused():
    grid = random_images(2, 3, 1, 4, 4)
    with pytest.raises(ReportError, match=r"column_values: must be finite \(got nan\)"):
        manifold_figure(grid, np.zeros(2), np.array([0, np.nan, 1]))
    with pytest.raises(ReportError, match=r"class_names: must be 2, one per class \(got 1\)"):
        class_samples_figure(grid, ["cat"])
    with pytest.raises(ReportError, match=r"images: must hold at least 1 \(got 0\)"):
        prior_figure(grid[0, :0])
