"""Contact sheets: a grid of images with captions, every image a whole multiple of its pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from diptych.reports.checks import ReportError
from diptych.reports.grids import WHITE, tile_images
from diptych.reports.style import (
    ORANGE,
    QUIET,
    TEXT_POINTS,
    TITLE_POINTS,
    new_page,
    pixels,
    styled,
    text_width,
)

IMAGE_PIXELS = 84
"""About how many pixels wide an image is drawn."""

_MARGIN = 20
_GAP = 8
_LINE = pixels(1.35 * TEXT_POINTS)
_TITLE_LINE = pixels(1.7 * TITLE_POINTS)


@dataclass(frozen=True, slots=True)
class Captions:
    """The words on a sheet.

    Attributes:
        title: One line above all.
        note: A quieter line under the title; empty for none.
        rows: One per row, to the left of it; empty for none.
        columns: One per column, above it; empty for none.
        cells: One per image in reading order, below it, each of any number of lines; empty for
            none. Where the last row is not full, there are fewer captions than cells.
    """

    title: str
    note: str = ""
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    cells: Sequence[str] = ()


@styled()
def sheet_figure(
    images: UInt8[np.ndarray, "row column channel height width"],
    captions: Captions,
    framed: Bool[np.ndarray, "row column"] | None = None,
    gap: int = _GAP,
) -> Figure:
    """Draw a grid of images with captions.

    Args:
        images: 1 or 3 channels.
        captions: The words.
        framed: Which images get a coloured frame; None for none.
        gap: Pixels of white between neighbours, >= 0.

    Raises:
        ReportError: when there is no image, or neither 1 nor 3 channels.
    """
    if images.size == 0:
        raise ReportError(f"images: must hold at least 1 pixel (got shape {images.shape})")
    images = _enlarge(images)
    layout = _lay_out(images, captions, gap)
    figure, axes = new_page(layout.page_width, layout.page_height)
    _draw_images(axes, images, layout)
    _draw_heading(axes, captions)
    _draw_captions(axes, captions, layout)
    if framed is not None:
        _draw_frames(axes, framed, layout)
    return figure


@styled()
def heading_figure(captions: Captions) -> Figure:
    """Draw a sheet without images: its title and note."""
    page_height = 2 * _MARGIN + _TITLE_LINE + (_LINE if captions.note else 0)
    figure, axes = new_page(2 * _MARGIN + _heading_width(captions), page_height)
    _draw_heading(axes, captions)
    return figure


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where things are, in pixels of the page; a cell is an image with its caption."""

    left: int
    top: int
    image_height: int
    image_width: int
    cell_height: int
    cell_width: int
    gap: int
    num_rows: int
    num_columns: int
    min_page_width: int

    @property
    def page_width(self) -> int:
        grid = self.num_columns * (self.cell_width + self.gap) - self.gap
        return max(self.left + grid + _MARGIN, self.min_page_width)

    @property
    def page_height(self) -> int:
        return self.top + self.num_rows * (self.cell_height + self.gap) - self.gap + _MARGIN

    def image_corner(self, row: int, column: int) -> tuple[int, int]:
        """Return x and y of an image's upper left corner; it is centred in its cell."""
        x = self.left + column * (self.cell_width + self.gap)
        y = self.top + row * (self.cell_height + self.gap)
        return x + (self.cell_width - self.image_width) // 2, y


def _enlarge(images: np.ndarray) -> np.ndarray:
    scale = max(1, round(IMAGE_PIXELS / images.shape[-1]))
    return images.repeat(scale, axis=3).repeat(scale, axis=4)


def _lay_out(images: np.ndarray, captions: Captions, gap: int) -> _Layout:
    num_rows, num_columns, _, height, width = images.shape
    num_lines = max((caption.count("\n") + 1 for caption in captions.cells), default=0)
    widest = max(map(text_width, [*captions.columns, *captions.cells]), default=0)
    row_room = max((text_width(caption) + _GAP for caption in captions.rows), default=0)
    return _Layout(
        left=_MARGIN + row_room,
        top=_MARGIN + _TITLE_LINE + _GAP + _LINE * (bool(captions.note) + bool(captions.columns)),
        image_height=height,
        image_width=width,
        cell_height=height + num_lines * _LINE + (_GAP if num_lines else 0),
        cell_width=max(width, widest),
        gap=gap,
        num_rows=num_rows,
        num_columns=num_columns,
        min_page_width=2 * _MARGIN + _heading_width(captions),
    )


def _heading_width(captions: Captions) -> int:
    return max(text_width(captions.title, TITLE_POINTS), text_width(captions.note))


def _draw_heading(axes: Axes, captions: Captions) -> None:
    axes.text(_MARGIN, _MARGIN, captions.title, fontsize=TITLE_POINTS, va="top")
    axes.text(_MARGIN, _MARGIN + _TITLE_LINE, captions.note, color=QUIET, va="top")


def _draw_images(axes: Axes, images: np.ndarray, layout: _Layout) -> None:
    below = layout.cell_height - layout.image_height + layout.gap
    right = layout.cell_width - layout.image_width + layout.gap
    picture = tile_images(images, padding=(below, right), background=WHITE)
    height, width, _ = picture.shape
    x, y = layout.image_corner(0, 0)
    axes.imshow(
        np.broadcast_to(picture, (height, width, 3)),
        interpolation="nearest",
        extent=(x, x + width, y + height, y),
        aspect="auto",
    )
    axes.set_xlim(0, layout.page_width)
    axes.set_ylim(layout.page_height, 0)


def _draw_captions(axes: Axes, captions: Captions, layout: _Layout) -> None:
    half_width, half_height = layout.image_width / 2, layout.image_height / 2
    for row, caption in enumerate(captions.rows):
        _, y = layout.image_corner(row, 0)
        axes.text(layout.left - _GAP, y + half_height, caption, ha="right", va="center")
    for column, caption in enumerate(captions.columns):
        x, y = layout.image_corner(0, column)
        axes.text(x + half_width, y - _GAP // 2, caption, ha="center", va="bottom")
    for cell, caption in enumerate(captions.cells):
        x, y = layout.image_corner(*divmod(cell, layout.num_columns))
        below = y + layout.image_height + _GAP // 2
        axes.text(x + half_width, below, caption, ha="center", va="top", linespacing=1.2)


def _draw_frames(axes: Axes, framed: np.ndarray, layout: _Layout) -> None:
    width, height = layout.image_width, layout.image_height
    for row, column in np.argwhere(framed):
        corner = layout.image_corner(int(row), int(column))
        axes.add_patch(Rectangle(corner, width, height, fill=False, color=ORANGE, linewidth=2))
