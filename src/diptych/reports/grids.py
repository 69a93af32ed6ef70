"""Many images as one picture, and a picture as PNG."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from diptych.files import write_atomically
from diptych.reports.checks import ReportError

WHITE = 255

GRIDS_FOLDER = "grids"
"""In a folder of pictures, the plain ones by which runs are compared."""


def arrange_images(
    images: UInt8[np.ndarray, "image channel height width"], num_columns: int
) -> UInt8[np.ndarray, "row column channel height width"]:
    """Lay images out in reading order; the cells left over in the last row are white.

    Args:
        images: At least one.
        num_columns: At most this many in a row, >= 1; fewer where there are fewer images.

    Raises:
        ReportError: when there is no image.
    """
    num_images, *shape = images.shape
    if num_images == 0:
        raise ReportError("images: must hold at least 1 (got 0)")
    num_columns = min(num_columns, num_images)
    num_rows = -(-num_images // num_columns)
    cells = np.full((num_rows * num_columns, *shape), WHITE, dtype=np.uint8)
    cells[:num_images] = images
    return cells.reshape(num_rows, num_columns, *shape)


def tile_images(
    images: UInt8[np.ndarray, "row column channel height width"],
    padding: int | tuple[int, int] = 2,
    background: int = WHITE,
) -> UInt8[np.ndarray, "picture_height picture_width channel"]:
    """Put a grid of images side by side.

    Args:
        images: 1 (grey) or 3 (red, green, blue) channels.
        padding: Pixels between neighbours, none at the rim: one number, or (between rows,
            between columns).
        background: Value of the padding, 0..255.

    Returns:
        The picture, channels last.

    Raises:
        ReportError: when there is no image, or neither 1 nor 3 channels.
    """
    rows, columns, channels, height, width = images.shape
    if images.size == 0:
        raise ReportError(f"images: must hold at least 1 pixel (got shape {images.shape})")
    if channels not in (1, 3):
        raise ReportError(f"images: must have 1 or 3 channels (got {channels})")
    below, right = (padding, padding) if isinstance(padding, int) else padding
    room = ((0, 0), (0, 0), (0, 0), (0, below), (0, right))
    cells = np.pad(images, room, constant_values=background)
    picture = cells.transpose(0, 3, 1, 4, 2)  # row height column width channel
    picture = picture.reshape(rows * (height + below), columns * (width + right), channels)
    return np.ascontiguousarray(picture[: picture.shape[0] - below, : picture.shape[1] - right])


def picture_png(picture: UInt8[np.ndarray, "height width channel"]) -> bytes:
    """Encode a picture of 1 or 3 channels; the bytes depend on the picture alone."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(picture.squeeze(2) if picture.shape[2] == 1 else picture).save(content, "PNG")
    return content.getvalue()


def save_grids(
    folder: Path, grids: Mapping[str, UInt8[np.ndarray, "row column channel height width"]]
) -> None:
    """Write each grid, its images side by side and nothing else, as `<name>.png` into a folder.

    Raises:
        ReportError: as `tile_images`.
    """
    for name, images in grids.items():
        write_atomically(folder / f"{name}.png", picture_png(tile_images(images)))
