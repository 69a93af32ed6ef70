"""What a VAE keeps of an image: each original above its reconstruction."""

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure

from diptych.reports.checks import check_finite
from diptych.reports.grids import WHITE, arrange_images
from diptych.reports.sheets import Captions, sheet_figure


def pair_images(
    originals: UInt8[np.ndarray, "image channel height width"],
    reconstructions: UInt8[np.ndarray, "image channel height width"],
) -> UInt8[np.ndarray, "image channel pair_height width"]:
    """Put each original above its reconstruction, with one white line between."""
    line = np.full_like(originals[:, :, :1], WHITE)
    return np.concatenate([originals, line, reconstructions], axis=2)


def reconstructions_figure(
    originals: UInt8[np.ndarray, "image channel height width"],
    reconstructions: UInt8[np.ndarray, "image channel height width"],
    distortions_nats: Float[np.ndarray, " image"] | None = None,
    num_columns: int = 10,
) -> Figure:
    """Show originals and, below each, its reconstruction.

    Args:
        originals: 1 or 3 channels.
        reconstructions: In the same order.
        distortions_nats: Per image, printed below each pair; None for none.
        num_columns: At most this many pairs in a row, >= 1.

    Raises:
        ReportError: when there is no pair, or a distortion is not finite.
    """
    pairs = arrange_images(pair_images(originals, reconstructions), num_columns)
    title, note = "Reconstructions", "binarised input above, reconstruction below"
    if distortions_nats is None:
        return sheet_figure(pairs, Captions(title, note))
    check_finite("distortions_nats", distortions_nats)
    note += f"; distortion in nats (mean of these {distortions_nats.mean():.1f})"
    cells = [f"{distortion:.1f}" for distortion in distortions_nats]
    return sheet_figure(pairs, Captions(title, note, cells=cells))
