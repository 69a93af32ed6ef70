"""Whether a classifier is right as often as it says."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, PercentFormatter, StrMethodFormatter

from diptych.reports.checks import check_labels, check_not_empty, check_probabilities
from diptych.reports.style import BLUE, ORANGE, QUIET, new_figure, styled


@dataclass(frozen=True, slots=True)
class ReliabilityBins:
    """Images binned by confidence, the probability of the predicted class.

    Attributes:
        counts: Number of images per bin.
        confidences: Their mean confidence; NaN where there is none.
        accuracies: The share that is classified rightly; NaN where there is none.
    """

    counts: Int[np.ndarray, " bin"]
    confidences: Float[np.ndarray, " bin"]
    accuracies: Float[np.ndarray, " bin"]

    @property
    def expected_calibration_error(self) -> float:
        """Mean over images of their bin's |accuracy − confidence|.

        Source: Guo et al. (2017), "On calibration of modern neural networks", eq. 3.
        """
        gaps = np.nan_to_num(np.abs(self.accuracies - self.confidences))
        return float((self.counts * gaps).sum() / self.counts.sum())


def reliability_bins(
    confidences: Float[np.ndarray, " image"], correct: Bool[np.ndarray, " image"], num_bins: int
) -> ReliabilityBins:
    """Bin images by confidence, in `num_bins` bins of equal width, each with its upper edge."""
    # In the confidences' own precision, which alone puts a value on an edge into the right bin.
    bins = np.clip(np.ceil(confidences * num_bins).astype(int) - 1, 0, num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    confidences = confidences.astype(np.float64)
    divisor = np.where(counts == 0, np.nan, counts)
    return ReliabilityBins(
        counts=counts,
        confidences=np.bincount(bins, confidences, num_bins) / divisor,
        accuracies=np.bincount(bins, correct, num_bins) / divisor,
    )


@styled()
def reliability_figure(
    labels: Int[np.ndarray, " image"],
    probabilities: Float[np.ndarray, "image class"],
    calibrated_probabilities: Float[np.ndarray, "image class"] | None = None,
    num_bins: int = 15,
) -> Figure:
    """Draw accuracy against confidence, with 95 % intervals, and how many images are in each bin.

    Args:
        labels: True classes, counted from 0.
        probabilities: The classifier's, each row a distribution.
        calibrated_probabilities: A second curve, after calibration; None for none.
        num_bins: Number of bins of equal width in [0, 1], >= 1.

    Raises:
        ReportError: when there is no image, a label is no class or a row no distribution.
    """
    curves = {"before calibration" if calibrated_probabilities is not None else "": probabilities}
    if calibrated_probabilities is not None:
        curves["after calibration"] = calibrated_probabilities
    figure = new_figure(5.8, 5.8)
    above, below = figure.subplots(2, height_ratios=[3, 1], sharex=True)
    above.plot([0, 1], [0, 1], color=QUIET, linestyle=(0, (4, 3)), linewidth=1)
    for place, (name, values) in enumerate(curves.items()):
        bins = _bins(labels, values, num_bins)
        colour = (BLUE, ORANGE)[place]
        shift = (place - (len(curves) - 1) / 2) / len(curves)
        _draw_curve(above, bins, name, colour)
        _draw_counts(below, bins, colour, width=0.8 / len(curves), shift=0.8 * shift)
    _finish(above, below)
    figure.suptitle(f"Reliability on {len(labels):,} images", x=0.02, ha="left")
    return figure


def _bins(labels: np.ndarray, probabilities: np.ndarray, num_bins: int) -> ReliabilityBins:
    check_not_empty("labels", len(labels))
    check_labels("labels", labels, probabilities.shape[1])
    check_probabilities("probabilities", probabilities)
    correct = probabilities.argmax(axis=1) == labels
    return reliability_bins(probabilities.max(axis=1), correct, num_bins)


def _draw_curve(axes: Axes, bins: ReliabilityBins, name: str, colour: str) -> None:
    filled = bins.counts > 0
    x, y, n = bins.confidences[filled], bins.accuracies[filled], bins.counts[filled]
    low, high = _wilson_interval(y, n)
    error = f"ECE {bins.expected_calibration_error:.4f}"
    axes.errorbar(
        x,
        y,
        yerr=[np.maximum(y - low, 0), np.maximum(high - y, 0)],
        color=colour,
        marker="o",
        markersize=4,
        elinewidth=1,
        label=f"{name}: {error}" if name else error,
    )


def _draw_counts(
    axes: Axes, bins: ReliabilityBins, colour: str, width: float, shift: float
) -> None:
    num_bins = len(bins.counts)
    centres = (np.arange(num_bins) + 0.5 + shift) / num_bins
    axes.bar(centres, bins.counts, width / num_bins, color=colour)


def _finish(above: Axes, below: Axes) -> None:
    above.legend(loc="lower left", bbox_to_anchor=(0, 1), borderpad=0, ncols=2)
    above.set_ylim(-0.02, 1.02)
    above.set_ylabel("accuracy in the bin")
    above.yaxis.set_major_formatter(PercentFormatter(1))
    below.set_yscale("log")
    below.set_ylim(bottom=0.7)  # one image is a visible bar
    below.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    below.yaxis.set_minor_locator(NullLocator())
    below.set_xlim(-0.02, 1.02)
    below.set_ylabel("images")
    below.set_xlabel("confidence: probability of the predicted class")
    below.xaxis.set_major_formatter(PercentFormatter(1))


def _wilson_interval(share: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95 % interval of a share of n. Source: Wilson (1927)."""
    z = 1.96
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return centre - half, centre + half
