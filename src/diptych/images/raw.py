"""The raw folder: a data set's four published files, uncompressed, under their official names."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import numpy as np

from diptych.files import write_atomically
from diptych.images.arrays import ImageSet
from diptych.images.datasets import Dataset, DatasetFile
from diptych.images.idx import read_images, read_labels
from diptych.images.integrity import DataError, check_idx, read_bounded, verified_idx
from diptych.images.sources import Source


def fetch_raw(
    dataset: Dataset,
    sources: Iterable[Source],
    folder: Path,
    report: Callable[[str], None],
) -> None:
    """Fill a folder with a data set's files, from the first sources that have the right bytes.

    Files that are there and verified are not fetched again. Nothing unverified is ever written.

    Args:
        dataset: Which files.
        sources: Tried in turn.
        folder: Where to.
        report: Takes one line per source: what it gave or why it failed.

    Raises:
        DataError: when a file is still missing in the end.
    """
    missing = [file for file in dataset.files if not _is_verified(folder / file.name, file)]
    if not missing:
        report(f"{folder}: {dataset.name} is there, verified")
        return
    for source in sources:
        try:
            _fetch_from(source, missing, folder)
        except DataError as error:
            report(f"{source}: {error}")
        if not missing:
            report(f"{source}: {dataset.name} is complete, verified")
            return
    raise DataError(
        f"dataset.sources: one must have the right bytes for {dataset.name} "
        f"(got none for {', '.join(file.name for file in missing)})"
    )


def read_raw(folder: Path, dataset: Dataset, part: Literal["train", "test"]) -> ImageSet:
    """Read the official training or test file, verified against its published digest.

    Raises:
        DataError: when a file is missing, not the published one, or no valid IDX file.
    """
    images_file, labels_file = {
        "train": (dataset.train_images, dataset.train_labels),
        "test": (dataset.test_images, dataset.test_labels),
    }[part]
    images_path, labels_path = folder / images_file.name, folder / labels_file.name
    images = read_images(_read_checked(images_path, images_file), str(images_path))
    num_classes = len(dataset.class_names)
    labels = read_labels(_read_checked(labels_path, labels_file), num_classes, str(labels_path))
    if len(images) != len(labels):
        raise DataError(
            f"{labels_path}: must have {len(images)} labels, one per image (got {len(labels)})"
        )
    return ImageSet(images[:, np.newaxis], labels.astype(np.int64))


def _fetch_from(source: Source, missing: list[DatasetFile], folder: Path) -> None:
    """Write what the source has and take it off the list."""
    for content in source.read(tuple(missing)):
        write_atomically(folder / missing[0].name, verified_idx(content, missing[0]))
        missing.pop(0)


def _is_verified(path: Path, file: DatasetFile) -> bool:
    if file.idx_sha256 is None:
        return False  # the published digest is of the .gz, which is not kept
    try:
        _read_checked(path, file)
    except DataError:
        return False
    return True


def _read_checked(path: Path, file: DatasetFile) -> bytes:
    content = read_bounded(path, file.num_bytes)
    check_idx(content, file, where=str(path))
    return content
