"""The one look of all figures: quiet lines, dark text, colours that colour-blind readers can tell.

Figures are made without pyplot, so that there is no global figure and no display.
"""

import functools
import io
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from diptych.files import write_atomically

INK = "#24292f"
QUIET = "#7d858e"
FAINT = "#e4e7eb"
BLUE = "#3f90da"
ORANGE = "#e76300"

# Petroff (2021), "Accessible color sequences for data visualization", the ten-colour sequence.
CLASS_COLOURS = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)

DOTS_PER_INCH = 128  # a power of two: a whole number of pixels stays whole in inches
TITLE_POINTS = 11.0
TEXT_POINTS = 8.5

_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": QUIET,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": TITLE_POINTS,
    "figure.constrained_layout.h_pad": 0.1,
    "figure.constrained_layout.w_pad": 0.1,
    "figure.dpi": DOTS_PER_INCH,
    "figure.titlesize": TITLE_POINTS,
    "font.size": TEXT_POINTS,
    "grid.color": FAINT,
    "legend.fontsize": TEXT_POINTS,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "savefig.dpi": "figure",
    "text.color": INK,
    "text.parse_math": False,  # a class may be called $10
    "xtick.color": QUIET,
    "xtick.labelcolor": INK,
    "xtick.labelsize": TEXT_POINTS,
    "ytick.color": QUIET,
    "ytick.labelcolor": INK,
    "ytick.labelsize": TEXT_POINTS,
}

styled = functools.partial(matplotlib.style.context, _STYLE, after_reset=True)
"""`@styled()`: what the function draws has this look, whatever the user's matplotlibrc says."""


def class_colour(label: int | np.integer) -> str:
    """Return the colour of a class; from the eleventh class on, colours come again."""
    return CLASS_COLOURS[label % len(CLASS_COLOURS)]


@styled()
def new_figure(width_inches: float, height_inches: float) -> Figure:
    """Return an empty figure that makes room for its labels by itself."""
    return Figure(figsize=(width_inches, height_inches), layout="constrained")


@styled()
def new_page(width: int, height: int) -> tuple[Figure, Axes]:
    """Return a figure of that many pixels, and axes over all of it: x right, y down, in pixels."""
    figure = Figure(figsize=(width / DOTS_PER_INCH, height / DOTS_PER_INCH))
    axes = figure.add_axes((0, 0, 1, 1), frame_on=False, xticks=[], yticks=[])
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    return figure, axes


def pixels(points: float) -> int:
    """Return a length in points as whole pixels, rounded up."""
    return -int(-points * DOTS_PER_INCH // 72)


@styled()
def text_width(text: str, points: float = TEXT_POINTS) -> int:
    """Return how many pixels wide the widest line of a text is at that font size."""
    lines = [line for line in text.splitlines() if line.strip()]
    widths = [TextPath((0, 0), line, size=points).get_extents().x1 for line in lines]
    return pixels(max(widths, default=0.0))


@styled()
def figure_png(figure: Figure) -> bytes:
    """Encode a figure; the bytes hold no clock and no version, equal figures are equal bytes."""
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure as a PNG file."""
    write_atomically(path, figure_png(figure))
