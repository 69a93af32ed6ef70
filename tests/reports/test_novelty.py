"""Each set has a row with the share that is not accepted; what cannot be drawn is refused."""

import math

import numpy as np
import pytest

from diptych.reports.checks import ReportError
from diptych.reports.novelty import novelty_figure
from diptych.reports.style import figure_png

USUAL = {"validation": np.linspace(50, 150, 101), "test": np.linspace(60, 160, 101)}
ACCEPTED = (51.0, 149.0)
NOVEL = {"noise": np.linspace(500, 900, 10), "$blank": np.full(3, 0.5)}


def test_every_set_is_a_row_with_its_name_and_the_share_not_accepted():
    figure = novelty_figure(USUAL, NOVEL, ACCEPTED)
    rows = [(axes.get_ylabel(), axes.texts[0].get_text()) for axes in figure.axes]
    assert rows == [
        ("validation", "2.0%"),
        ("test", "10.9%"),
        ("noise", "100.0%"),
        ("$blank", "100.0%"),
    ]
    assert figure_png(figure) == figure_png(novelty_figure(USUAL, NOVEL, ACCEPTED))


def test_every_score_is_in_view():
    figure = novelty_figure(USUAL, NOVEL, ACCEPTED)
    low, high = figure.axes[0].get_xlim()
    assert low < 0.5
    assert high > 900
    assert all(axes.get_xlim() == (low, high) for axes in figure.axes)


@pytest.mark.parametrize("accepted", [(-math.inf, math.inf), (149.0, 51.0), (1e4, 1e5)])
@pytest.mark.parametrize("novel", [{}, NOVEL])
def test_any_accepted_range_can_be_drawn(accepted, novel):
    assert figure_png(novelty_figure(USUAL, novel, accepted))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.zeros(0), "noise: must hold at least 1"),
        (np.array([1.0, np.nan]), "noise: must be finite"),
        (np.array([1.0, 0.0]), r"noise: must be > 0 \(got 0.0\)"),
    ],
)
def test_scores_that_cannot_be_drawn_are_refused(scores, message):
    with pytest.raises(ReportError, match=message):
        novelty_figure(USUAL, {"noise": scores}, ACCEPTED)
