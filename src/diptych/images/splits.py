"""Seeded, stratified splits that are the same on every platform."""

import numpy as np
from jaxtyping import Int64

from diptych.images.integrity import DataError


def stratified_split(
    labels: Int64[np.ndarray, " num"], num_classes: int, num_validation: int, seed: int
) -> tuple[Int64[np.ndarray, " num_train"], Int64[np.ndarray, " num_validation"]]:
    """Choose the images that are held out for validation.

    Args:
        labels: Class of each image.
        num_classes: Number of classes; each has at least one image on both sides.
        num_validation: Number of images held out in all. Every class gives its proportional share,
            rounded down or up.
        seed: Which images of a class are held out.

    Returns:
        The positions of the training and of the validation images, ascending.

    Raises:
        DataError: when a class would be left without a training or a validation image.
    """
    if num_validation >= len(labels):
        raise DataError(
            f"preprocess.num_validation: must be < {len(labels)}, the number of images in the "
            f"training file (got {num_validation})"
        )
    num_images = np.bincount(labels, minlength=num_classes)
    num_held_out = _proportional_shares(num_images, num_validation)
    _require_both_sides(num_images, num_held_out)
    # NumPy keeps the raw bits of its bit generators the same for good, but not its permutations.
    keys = np.random.PCG64(seed).random_raw(len(labels))
    held_out = np.zeros(len(labels), dtype=bool)
    for label, num in enumerate(num_held_out):
        positions = np.flatnonzero(labels == label)
        held_out[positions[np.argsort(keys[positions], kind="stable")[:num]]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _proportional_shares(
    num_images: Int64[np.ndarray, " num_classes"], num_total: int
) -> Int64[np.ndarray, " num_classes"]:
    """Round proportional shares to integers with the right sum, by largest remainders."""
    shares, remainders = np.divmod(num_images * num_total, num_images.sum())
    num_left = num_total - shares.sum()
    shares[np.argsort(-remainders, kind="stable")[:num_left]] += 1
    return shares


def _require_both_sides(
    num_images: Int64[np.ndarray, " num_classes"],
    num_held_out: Int64[np.ndarray, " num_classes"],
) -> None:
    for label, (num, num_out) in enumerate(zip(num_images, num_held_out, strict=True)):
        if not 0 < num_out < num:
            raise DataError(
                "preprocess.num_validation: must leave each class a training and a validation "
                f"image (got {num_out} of the {num} images of class {label} for validation)"
            )
