"""Reliability: bins against a hand-made table, the error against its definition."""

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from diptych.cnn.metrics import expected_calibration_error
from diptych.reports.calibration import reliability_bins, reliability_figure
from diptych.reports.checks import ReportError
from diptych.reports.style import figure_png


def two_classes(confidences) -> np.ndarray:
    """Probabilities of images that are all taken for class 0."""
    confidences = np.asarray(confidences, dtype=np.float64)
    return np.stack([confidences, 1 - confidences], axis=1)


def bars_of(axes: Axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def test_bins_against_a_table():
    confidences = np.array([0.55, 0.65, 0.75, 0.5, 1.0])
    correct = np.array([True, False, True, True, True])
    bins = reliability_bins(confidences, correct, num_bins=4)
    np.testing.assert_array_equal(bins.counts, [0, 1, 3, 1])
    np.testing.assert_allclose(bins.confidences, [np.nan, 0.5, 0.65, 1.0])
    np.testing.assert_allclose(bins.accuracies, [np.nan, 1, 2 / 3, 1])
    expected = (1 * 0.5 + 3 * (2 / 3 - 0.65) + 0) / 5
    assert bins.expected_calibration_error == pytest.approx(expected)


@pytest.mark.parametrize("num_bins", [1, 10, 15])
def test_the_figures_error_is_the_classifiers(num_bins):
    """Also where a confidence lies on the edge of a bin, as far as float32 can say so."""
    rng = np.random.default_rng(0)
    edges = np.arange(num_bins + 1) / num_bins
    confidences = np.concatenate([rng.uniform(size=200), edges]).astype(np.float32)
    correct = rng.uniform(size=len(confidences)) < 0.7
    shown = reliability_bins(confidences, correct, num_bins).expected_calibration_error
    tensors = torch.from_numpy(confidences), torch.from_numpy(correct)
    reported = expected_calibration_error(*tensors, num_bins)
    assert shown > 0.01
    assert shown == pytest.approx(reported, abs=1e-12)


def test_confidence_zero_belongs_to_the_first_bin():
    bins = reliability_bins(np.zeros(2), np.zeros(2, dtype=bool), num_bins=3)
    np.testing.assert_array_equal(bins.counts, [2, 0, 0])
    assert bins.expected_calibration_error == 0


def test_one_bin_gives_the_gap_between_mean_confidence_and_accuracy():
    rng = np.random.default_rng(0)
    confidences, correct = rng.random(100).astype(np.float32), rng.random(100) < 0.4
    bins = reliability_bins(confidences, correct, num_bins=1)
    gap = abs(correct.mean() - confidences.mean(dtype=np.float64))
    assert bins.expected_calibration_error == pytest.approx(gap)


def test_the_figure_states_both_errors():
    labels = np.array([0, 0, 0, 1])
    confident, calibrated = two_classes([0.95] * 4), two_classes([0.75] * 4)
    above, below = reliability_figure(labels, confident, calibrated).axes
    names = above.get_legend_handles_labels()[1]
    assert names == ["before calibration: ECE 0.2000", "after calibration: ECE 0.0000"]
    assert sum(bar.get_height() for bar in bars_of(below)) == 8


def test_bars_of_two_curves_stand_side_by_side_within_their_bin():
    labels = np.zeros(4, dtype=int)
    same = two_classes([0.55] * 4)
    below = reliability_figure(labels, same, same, num_bins=10).axes[1]
    first, second = (bar for bar in bars_of(below) if bar.get_height())
    assert first.get_x() + first.get_width() == pytest.approx(second.get_x())
    assert first.get_x() > 0.5
    assert second.get_x() + second.get_width() < 0.6


def test_one_image_is_enough_and_equal_values_give_equal_bytes():
    labels, probabilities = np.array([1]), np.array([[0.3, 0.7]], dtype=np.float32)
    first, second = (figure_png(reliability_figure(labels, probabilities)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([2], [[0.9, 0.1]], r"labels: must be in 0\.\.1 \(got 2\)"),
        ([0], [[np.nan, 0.1]], r"probabilities: must be in \[0, 1\] \(got nan\)"),
        ([0], [[2.5, -1.5]], r"probabilities: must be in \[0, 1\] \(got 2.5\)"),
        ([0], [[0.5, 0.1]], r"probabilities: must sum to 1 for every image \(got 0.6\)"),
    ],
)
def test_what_is_no_distribution_is_refused(labels, probabilities, message):
    with pytest.raises(ReportError, match=message):
        reliability_figure(np.array(labels), np.array(probabilities))
