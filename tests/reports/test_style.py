"""The look of figures: the same for everybody, and no trace of when or with what it was drawn."""

import io

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from diptych.reports.style import (
    DOTS_PER_INCH,
    TEXT_POINTS,
    figure_png,
    new_figure,
    new_page,
    pixels,
    save_figure,
    styled,
    text_width,
)


@styled()
def a_figure() -> Figure:
    figure = new_figure(2.0, 1.5)
    axes = figure.add_subplot()
    axes.plot([0, 1], [2, 3], label="a line")
    axes.set_xlabel("time")
    axes.legend()
    return figure


def test_the_users_own_settings_change_nothing_and_are_left_as_they_were():
    plain = figure_png(a_figure())
    with mpl.rc_context({"font.size": 20, "lines.linewidth": 7, "savefig.bbox": "tight"}):
        assert figure_png(a_figure()) == plain
        assert mpl.rcParams["font.size"] == 20
        assert mpl.rcParams["savefig.bbox"] == "tight"


def test_a_figure_names_no_software_and_no_time():
    assert Image.open(io.BytesIO(figure_png(a_figure()))).info.keys() == {"dpi"}


def test_a_saved_figure_is_its_png(tmp_path):
    save_figure(tmp_path / "plots" / "figure.png", a_figure())
    assert (tmp_path / "plots" / "figure.png").read_bytes() == figure_png(a_figure())


def test_drawing_leaves_no_global_figure():
    import matplotlib.pyplot as plt

    figure_png(a_figure())
    assert plt.get_fignums() == []


@pytest.mark.parametrize(("width", "height"), [(1, 1), (333, 71), (1001, 999)])
def test_a_page_has_exactly_the_pixels_asked_for(width, height):
    figure, _ = new_page(width, height)
    assert Image.open(io.BytesIO(figure_png(figure))).size == (width, height)


def test_points_become_whole_pixels_rounded_up():
    assert pixels(72.0) == DOTS_PER_INCH
    assert pixels(0.0) == 0
    assert pixels(0.1) == 1


def test_a_text_is_as_wide_as_it_is_drawn():
    text = "Ankle boot → Sneaker"
    figure, axes = new_page(300, 40)
    axes.text(0, 30, text, fontsize=TEXT_POINTS)
    page = np.asarray(Image.open(io.BytesIO(figure_png(figure))).convert("L"))
    drawn = np.flatnonzero((page < 200).any(axis=0)).max() + 1
    assert abs(drawn - text_width(text)) <= 3


def test_the_widest_line_counts_and_dollars_are_no_mathematics():
    assert text_width("i\nwww\n") == text_width("www") > text_width("i")
    assert text_width("$10 and $x") > text_width("10 and x")
    assert text_width("") == 0
