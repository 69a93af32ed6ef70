"""Curves: a CSV that loses no digit, and panels by quantity."""

import numpy as np
import pandas as pd
import pytest

from diptych.reports.checks import ReportError
from diptych.reports.curves import curves_figure, write_curves
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


def test_every_digit_survives_and_columns_keep_their_order(tmp_path):
    rows: list[dict[str, float | int]] = [
        {"epoch": 1, "zeta": 0.1 + 0.2, "alpha": float(np.float32(0.1))},
        {"epoch": 2, "alpha": 1e-300, "zeta": 1 / 3},
    ]
    path = tmp_path / "plots" / "curves.csv"
    write_curves(path, rows)
    expected = (
        "epoch,zeta,alpha\n1,0.30000000000000004,0.10000000149011612\n2,0.3333333333333333,1e-300\n"
    )
    assert path.read_bytes().decode() == expected


def test_pandas_reads_back_what_was_written(tmp_path):
    table = a_table(5)
    rows = [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
    write_curves(tmp_path / "curves.csv", rows)
    read = pd.read_csv(tmp_path / "curves.csv")
    pd.testing.assert_frame_equal(read, table, check_exact=True)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "curves: must hold at least 1 epoch"),
        ([{"epoch": 1}, {"epoch": 2, "loss": 1.0}], r"curves: row 2: must hold \['epoch'\] \(got"),
    ],
)
def test_a_table_with_holes_is_refused_and_nothing_is_written(rows, message, tmp_path):
    with pytest.raises(ReportError, match=message):
        write_curves(tmp_path / "curves.csv", rows)
    assert list(tmp_path.iterdir()) == []


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
