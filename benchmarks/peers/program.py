"""What the programs have in common: arguments in, one line of JSON out."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""Shaped `num height width`."""

Labels = npt.NDArray[np.int64]
"""Shaped `num`."""


@dataclass(frozen=True, slots=True)
class Images:
    """Grey images of the official training and test files, with their classes."""

    train_images: Pixels
    train_labels: Labels
    test_images: Pixels
    test_labels: Labels


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a program prints.

    Attributes:
        seconds: Of training, from arrays in memory, without the looks at the test set.
        accuracies: On the test set, after each epoch.
        num_parameters: Of the network.
        versions: By package.
    """

    seconds: float
    accuracies: list[float]
    num_parameters: int
    versions: dict[str, str]


def run_program(train: Callable[[Images, int, int], Outcome]) -> None:
    """Be a program: read its arguments, train, print the outcome as one line of JSON.

    Bad arguments, bad data and missing packages end the process with one line and exit code 2.

    Args:
        train: Takes images, number of epochs and seed.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--processed", type=Path, required=True, help="folder of the arrays")
    parser.add_argument("--epochs", type=_count, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        images = load_images(arguments.processed)
    except (OSError, ValueError) as error:
        parser.error(" ".join(str(error).split()))
    try:
        outcome = train(images, arguments.epochs, arguments.seed)
    except ModuleNotFoundError as error:
        parser.error(str(error))
    print(json.dumps(asdict(outcome)))


def load_images(processed: Path) -> Images:
    """Read the arrays of a processed data set; what was split off for validation comes back.

    Raises:
        OSError: when an array is missing.
        ValueError: when a file is no array, or the images are not grey.
    """
    parts = [_load(processed, split) for split in ("train", "validation")]
    train_images, train_labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Images(train_images, train_labels, *_load(processed, "test"))


def _load(processed: Path, split: str) -> tuple[Any, Any]:
    file = processed / split / "images.npy"
    images = np.load(file)
    if images.ndim != 4 or images.shape[1] != 1:
        raise ValueError(f"{file}: images must have one channel (got shape {list(images.shape)})")
    return images[:, 0], np.load(processed / split / "labels.npy")


def _count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be >= 1 (got {text})")
    return int(text)
