"""Curves: panels by quantity."""

import numpy as np
import pandas as pd
import pytest

from diptych.reports.checks import ReportError
from diptych.reports.curves import curves_figure
from diptych.reports.style import figure_png


def a_table(num_epochs: int = 3) -> pd.DataFrame:
    values = np.linspace(1, 2, num_epochs)
    return pd.DataFrame(
        {
            "epoch": range(1, num_epochs + 1),
            "learning_rate": values / 1e3,
            "train_negative_elbo_nats": values,
            "validation_negative_elbo_nats": values + 1,
            "validation_accuracy": values / 3,
        }
    )


def test_a_panel_per_quantity_and_a_curve_per_split():
    panels = curves_figure(a_table(), "A training").axes
    assert [axes.get_title("left") for axes in panels] == [
        "learning rate",
        "negative ELBO, nats",
        "accuracy",
    ]
    names = [[line.get_label() for line in axes.lines] for axes in panels]
    assert names[1:] == [["train", "validation"], ["validation"]]
    np.testing.assert_array_equal(panels[1].lines[1].get_ydata(), [2, 2.5, 3])


def test_the_epoch_kept_is_marked_in_every_panel_and_named():
    figure = curves_figure(a_table(), "A training", best_epoch=2)
    assert all(np.array_equal(axes.lines[-1].get_xdata(), [2, 2]) for axes in figure.axes)
    assert figure.get_suptitle() == "A training (dashed: the epoch kept, 2)"


@pytest.mark.parametrize("num_epochs", [1, 2, 60])
def test_epochs_are_whole_numbers_on_the_axis(num_epochs):
    figure = curves_figure(a_table(num_epochs)[["epoch", "validation_accuracy"]], "A training")
    first, second = figure_png(figure), figure_png(figure)
    assert first == second
    ticks = figure.axes[0].get_xticks()
    np.testing.assert_array_equal(ticks, ticks.round())


@pytest.mark.parametrize(
    "table", [a_table().drop(columns="epoch"), a_table()[["epoch"]], a_table().iloc[:0]]
)
def test_a_table_without_curves_is_refused(table):
    with pytest.raises(ReportError, match="curves: must hold epoch and a quantity"):
        curves_figure(table, "A training")
