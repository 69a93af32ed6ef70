"""A training epoch by epoch: as a figure."""

import re
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from diptych.reports.checks import ReportError
from diptych.reports.style import BLUE, INK, ORANGE, QUIET, new_figure, styled

if TYPE_CHECKING:
    import pandas as pd

_SPLIT_COLOURS = {"train": BLUE, "validation": ORANGE, "": INK}
_ACRONYMS = {"ece": "ECE", "elbo": "ELBO", "kl": "KL", "nll": "NLL"}
_UNIT = re.compile(r"_((?:nats|bits|seconds|images)(?:_per_\w+)?)$")


@styled()
def curves_figure(table: "pd.DataFrame", title: str, best_epoch: int | None = None) -> Figure:
    """Draw one panel per quantity; `train_x` and `validation_x` share the panel of x.

    Args:
        table: One row per epoch: `epoch`, counted from 1, and quantities whose names end in
            their unit, as in `validation_distortion_nats`.
        title: One line above all.
        best_epoch: The epoch that was kept, marked by a line; None for none.

    Raises:
        ReportError: when there is no row, no column `epoch` or nothing beside it.
    """
    quantities = _quantities(table)
    num_columns = 2 if len(quantities) in (2, 4) else min(3, len(quantities))
    num_rows = -(-len(quantities) // num_columns)
    figure = new_figure(3.6 * num_columns + 0.2, 2.6 * num_rows + 0.5)
    panels = figure.subplots(num_rows, num_columns, squeeze=False).flat
    for axes, (quantity, columns) in zip(panels, quantities.items(), strict=False):
        for split, column in columns.items():
            _draw_curve(axes, table["epoch"], table[column], split)
        _finish(axes, quantity, best_epoch)
    for axes in list(figure.axes)[len(quantities) :]:
        axes.set_visible(False)
    kept = "" if best_epoch is None else f" (dashed: the epoch kept, {best_epoch})"
    figure.suptitle(title + kept, x=0.01, ha="left")
    return figure


def _quantities(table: "pd.DataFrame") -> dict[str, dict[str, str]]:
    """Return the columns by quantity and split, in the table's order."""
    if "epoch" not in table or len(table.columns) < 2 or table.empty:
        found = f"{len(table)} rows of {list(table.columns)}"
        raise ReportError(
            f"curves: must hold epoch and a quantity for 1 epoch or more (got {found})"
        )
    quantities: dict[str, dict[str, str]] = {}
    for column in table.columns.drop("epoch"):
        split, _, quantity = column.partition("_")
        if split not in _SPLIT_COLOURS:
            split, quantity = "", column
        quantities.setdefault(quantity, {})[split] = column
    return quantities


def _draw_curve(
    axes: Axes, epochs: "pd.Series[int]", values: "pd.Series[float]", split: str
) -> None:
    marker = "o" if len(epochs) <= 40 else ""
    axes.plot(
        epochs,
        values,
        color=_SPLIT_COLOURS[split],
        marker=marker,
        markersize=3,
        label=split or None,
    )


def _finish(axes: Axes, quantity: str, best_epoch: int | None) -> None:
    if best_epoch is not None:
        axes.axvline(best_epoch, color=QUIET, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_title(_name(quantity), fontsize=9)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    if axes.get_legend_handles_labels()[0]:
        axes.legend()


def _name(quantity: str) -> str:
    """Return `negative_elbo_nats` as `negative ELBO, nats`."""
    unit = _UNIT.search(quantity)
    words = quantity.removesuffix(unit[0]).split("_") if unit else quantity.split("_")
    name = " ".join(_ACRONYMS.get(word, word) for word in words)
    return f"{name}, {unit[1].replace('_', ' ')}" if unit else name
