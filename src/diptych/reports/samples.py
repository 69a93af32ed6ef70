"""What a VAE makes up: samples from the prior, its manifold, interpolations, a row per class."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure

from diptych.reports.checks import check_class_names, check_finite
from diptych.reports.grids import arrange_images
from diptych.reports.sheets import Captions, sheet_figure


def prior_figure(
    images: UInt8[np.ndarray, "image channel height width"], num_columns: int = 10
) -> Figure:
    """Show samples from the prior in reading order, at most `num_columns` in a row.

    Raises:
        ReportError: when there is no image, or neither 1 nor 3 channels.
    """
    captions = Captions(f"{len(images)} samples from the prior")
    return sheet_figure(arrange_images(images, num_columns), captions)


def manifold_figure(
    images: UInt8[np.ndarray, "row column channel height width"],
    row_values: Float[np.ndarray, " row"],
    column_values: Float[np.ndarray, " column"],
    axes_note: str = "down: latent 1, right: latent 2",
) -> Figure:
    """Show the images decoded on a grid in a plane of the latent space, seamlessly.

    Args:
        images: 1 or 3 channels.
        row_values: The rows' coordinate, in units of latent space.
        column_values: The columns' coordinate, in units of latent space.
        axes_note: What the two coordinates are.

    Raises:
        ReportError: when there is no image, or a coordinate is not finite.
    """
    check_finite("row_values", row_values)
    check_finite("column_values", column_values)
    captions = Captions(
        title="Decoded manifold",
        note=axes_note,
        rows=[_signed(value) for value in row_values],
        columns=[_signed(value) for value in column_values],
    )
    return sheet_figure(images, captions, gap=0)


def interpolations_figure(
    starts: UInt8[np.ndarray, "pair channel height width"],
    images: UInt8[np.ndarray, "pair step channel height width"],
    ends: UInt8[np.ndarray, "pair channel height width"],
) -> Figure:
    """Show, row by row, the way from one image to another through the latent space.

    Args:
        starts: The real images at the beginning, framed; 1 or 3 channels.
        images: What is decoded at equal steps, from the start's latent to the end's.
        ends: The real images at the end, framed.

    Raises:
        ReportError: when there is no image, or neither 1 nor 3 channels.
    """
    rows = np.concatenate([starts[:, None], images, ends[:, None]], axis=1)
    framed = np.zeros(rows.shape[:2], dtype=bool)
    framed[:, [0, -1]] = True
    fractions = np.linspace(0, 1, images.shape[1])
    captions = Captions(
        title="Interpolations",
        note="framed: real images; between them: decoded at this share of the way",
        columns=["start", *(f"{fraction:.0%}" for fraction in fractions), "end"],
    )
    return sheet_figure(rows, captions, framed)


def class_samples_figure(
    images: UInt8[np.ndarray, "class column channel height width"], class_names: Sequence[str]
) -> Figure:
    """Show one row of decoded images per class, under the class's name.

    Raises:
        ReportError: when there are not as many rows as names, or neither 1 nor 3 channels.
    """
    check_class_names(class_names, len(images))
    captions = Captions("Samples around each class's mean latent", rows=class_names)
    return sheet_figure(images, captions)


def _signed(value: np.floating) -> str:
    return f"{value:+.1f}".replace("-", "−")
