"""How far the scores of novel images lie from those of usual ones."""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from diptych.reports.checks import ReportError, check_finite, check_not_empty
from diptych.reports.style import BLUE, FAINT, ORANGE, new_figure, styled

_NUM_BINS = 120
_MARGIN = 1.1  # of the axis, beyond the least and the greatest score


@styled()
def novelty_figure(
    usual_nats: Mapping[str, Float[np.ndarray, " _"]],
    novel_nats: Mapping[str, Float[np.ndarray, " _"]],
    accepted_range_nats: tuple[float, float],
) -> Figure:
    """Draw the distribution of negative ELBOs of several sets, one below the other.

    Args:
        usual_nats: Negative ELBO per image, > 0, of sets that should be accepted, by name.
        novel_nats: The same of sets that should not.
        accepted_range_nats: The least and the greatest score that is accepted; may be infinite.

    Raises:
        ReportError: when a set is empty or a score is not finite or not above 0.
    """
    sets = {**usual_nats, **novel_nats}
    for name, scores in sets.items():
        _check_scores(name, scores)
    low = min(float(scores.min()) for scores in sets.values()) / _MARGIN
    high = max(float(scores.max()) for scores in sets.values()) * _MARGIN
    edges = np.geomspace(low, high, _NUM_BINS + 1)
    band = (max(accepted_range_nats[0], low), min(accepted_range_nats[1], high))

    figure = new_figure(7.2, 1.1 + 0.62 * len(sets))
    rows = figure.subplots(len(sets), sharex=True, squeeze=False)[:, 0]
    for axes, (name, scores) in zip(rows, sets.items(), strict=True):
        colour = BLUE if name in usual_nats else ORANGE
        _draw_row(axes, name, scores, edges, band, colour, accepted_range_nats)
    _finish(figure, rows[-1], (low, high))
    return figure


def _check_scores(name: str, scores: np.ndarray) -> None:
    check_not_empty(name, len(scores))
    check_finite(name, scores)
    if scores.min() <= 0:
        raise ReportError(f"{name}: must be > 0 (got {scores.min()})")


def _draw_row(
    axes: Axes,
    name: str,
    scores: np.ndarray,
    edges: np.ndarray,
    band: tuple[float, float],
    colour: str,
    accepted_range_nats: tuple[float, float],
) -> None:
    low, high = accepted_range_nats
    declined = 1 - np.mean((scores >= low) & (scores <= high))
    if band[0] < band[1]:
        axes.axvspan(*band, color=FAINT, linewidth=0)
    axes.stairs(np.histogram(scores, edges)[0], edges, fill=True, color=colour)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_ylabel(name, rotation=0, ha="right", va="center")
    axes.text(1.01, 0.5, f"{declined:.1%}", transform=axes.transAxes, va="center")


def _finish(figure: Figure, bottom: Axes, limits: tuple[float, float]) -> None:
    bottom.set_xscale("log")
    bottom.set_xlim(*limits)
    bottom.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    if math.log10(limits[1] / limits[0]) > 1:
        bottom.xaxis.set_minor_formatter(NullFormatter())
    else:
        bottom.xaxis.set_minor_formatter(StrMethodFormatter("{x:,g}"))
    bottom.set_xlabel("negative ELBO in nats per image; right: share that is not accepted")
    patches = [
        Patch(color=BLUE, label="to be accepted"),
        Patch(color=ORANGE, label="to be found novel"),
        Patch(color=FAINT, label="accepted"),
    ]
    figure.legend(handles=patches, loc="outside upper right", ncols=3)
    figure.suptitle("Novelty scores", x=0.02, ha="left")
