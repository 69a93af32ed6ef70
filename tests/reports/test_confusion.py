"""The confusion matrix: true by row, every count in its cell, nothing written where nothing is."""

import numpy as np
import pytest

from diptych.reports.checks import ReportError
from diptych.reports.confusion import confusion_matrix, confusion_matrix_figure
from diptych.reports.style import figure_png

LABELS = np.array([0, 0, 0, 2, 2])
PREDICTIONS = np.array([0, 0, 1, 2, 0])


def test_rows_are_true_classes_and_columns_predicted_ones():
    counts = confusion_matrix(LABELS, PREDICTIONS, 3)
    np.testing.assert_array_equal(counts, [[2, 1, 0], [0, 0, 0], [1, 0, 1]])


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64])
def test_counts_do_not_depend_on_the_integer_type(dtype):
    labels = np.arange(100, dtype=dtype)
    np.testing.assert_array_equal(confusion_matrix(labels, labels, 100), np.eye(100))


def test_each_count_stands_in_its_cell_and_zeros_are_silent():
    axes = confusion_matrix_figure(LABELS, PREDICTIONS, ["a", "b", "c"]).axes[0]
    shown = {text.get_position(): text.get_text() for text in axes.texts}
    assert shown == {(0, 0): "2", (1, 0): "1", (0, 2): "1", (2, 2): "1"}


def test_the_colour_scale_is_that_of_the_errors():
    labels = np.repeat(np.array([0, 1]), [10_000, 4])
    predictions = np.repeat(np.array([0, 1, 0]), [10_000, 1, 3])
    errors, _ = confusion_matrix_figure(labels, predictions, ["a", "b"]).axes[0].images
    assert errors.get_clim() == (1, 3)


def test_title_and_recalls_state_the_figures_and_an_absent_class_has_none():
    figure = confusion_matrix_figure(LABELS, PREDICTIONS, ["a", "b", "c"])
    figure_png(figure)
    axes = figure.axes[0]
    assert axes.get_title("left") == "Confusion matrix: 3 of 5 right (60.00%)"
    recalls = axes.child_axes[0].get_yticklabels()
    assert [label.get_text() for label in recalls] == ["66.7", "–", "50.0"]


@pytest.mark.parametrize("num_classes", [2, 25])
def test_counts_fit_their_cells(num_classes):
    labels = np.repeat(np.arange(num_classes), 1000)
    figure = confusion_matrix_figure(labels, labels, [str(n) for n in range(num_classes)])
    figure_png(figure)
    axes = figure.axes[0]
    cell = axes.get_window_extent().width / num_classes
    assert all(text.get_window_extent().width < cell for text in axes.texts)


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([0, 3], [0, 0], r"^labels: must be in 0\.\.2 \(got 3\)$"),
        ([0, 1], [0, -1], r"^predictions: must be in 0\.\.2 \(got -1\)$"),
        ([], [], r"^labels: must hold at least 1 \(got 0\)$"),
    ],
)
def test_labels_that_are_none_are_refused(labels, predictions, message):
    with pytest.raises(ReportError, match=message):
        confusion_matrix(np.array(labels, dtype=int), np.array(predictions, dtype=int), 3)
