"""Images and labels as arrays on disk: written once, verified and memory-mapped on each use."""

import hashlib
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from jaxtyping import Int64, Shaped, UInt8
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from diptych.files import sha256_of, write_atomically, write_json
from diptych.images.integrity import DataError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

IMAGES_FILE = "images.npy"
LABELS_FILE = "labels.npy"
DESCRIPTION_FILE = "dataset.json"
NOVEL_FOLDER = "novel"
NOVEL_FILE = "novel.json"

_MAX_PIXEL = 255


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Images with their labels.

    Attributes:
        images: Pixels from 0 to 255.
        labels: Class of each image.
    """

    images: UInt8[np.ndarray, "num channels height width"]
    labels: Int64[np.ndarray, " num"]

    def __len__(self) -> int:
        return len(self.images)

    def take(self, positions: Int64[np.ndarray, " num_taken"]) -> "ImageSet":
        """Return the images at these positions, in this order."""
        return ImageSet(self.images[positions], self.labels[positions])


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Description(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


D = TypeVar("D", bound=_Description)


class SplitDescription(_Description):
    """One split on disk."""

    num_images: Annotated[int, Field(ge=1)]
    images_sha256: Sha256
    labels_sha256: Sha256

    @property
    def digest(self) -> str:
        """The sha256, in hexadecimal, of both digests: it changes with any pixel or label."""
        return hashlib.sha256(f"{self.images_sha256}{self.labels_sha256}".encode()).hexdigest()


class DatasetDescription(_Description):
    """What dataset.json says about the arrays beside it."""

    name: str
    """Name of the data set."""

    class_names: tuple[str, ...]
    """One per label, in order."""

    image_shape: tuple[int, int, int]
    """Channels, height and width of every image."""

    pixel_mean: tuple[float, ...]
    """Mean of the training pixels, one per channel, on a scale from 0 to 1."""

    pixel_standard_deviation: tuple[float, ...]
    """Their population standard deviation, one per channel, on the same scale."""

    train: SplitDescription
    validation: SplitDescription
    test: SplitDescription

    def split(self, name: Split) -> SplitDescription:
        """Return the description of one split."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    @property
    def digest(self) -> str:
        """The sha256, in hexadecimal, of the digests of all arrays: it changes with any pixel."""
        splits = [self.split(name) for name in SPLITS]
        digests = [digest for one in splits for digest in (one.images_sha256, one.labels_sha256)]
        return hashlib.sha256("".join(digests).encode()).hexdigest()


class NovelDescription(_Description):
    """One set of images that a model should find novel."""

    num_images: Annotated[int, Field(ge=1)]
    images_sha256: Sha256


class _NovelDescriptions(_Description):
    """What novel.json says about the folders beside it, by name; there may be none."""

    sets: dict[Annotated[str, Field(pattern=r"^[a-z_]+$")], NovelDescription]


def save_dataset(
    folder: Path, name: str, class_names: tuple[str, ...], sets: Mapping[Split, ImageSet]
) -> DatasetDescription:
    """Write arrays and, last, their description; equal arguments give equal bytes.

    Args:
        folder: Gets `dataset.json` and, per split, a folder with `images.npy` and `labels.npy`.
        name: Name of the data set.
        class_names: One per label, in order.
        sets: All three splits.

    Returns:
        The description as written.
    """
    mean, standard_deviation = pixel_statistics(sets["train"].images)
    channels, height, width = sets["train"].images.shape[1:]
    description = DatasetDescription(
        name=name,
        class_names=class_names,
        image_shape=(channels, height, width),
        pixel_mean=mean,
        pixel_standard_deviation=standard_deviation,
        train=_save_split(folder / "train", sets["train"]),
        validation=_save_split(folder / "validation", sets["validation"]),
        test=_save_split(folder / "test", sets["test"]),
    )
    write_json(folder / DESCRIPTION_FILE, description.model_dump(mode="json"))
    return description


def load_description(folder: Path) -> DatasetDescription:
    """Read dataset.json.

    Args:
        folder: The one that `save_dataset` filled.

    Raises:
        DataError: when it is missing, unreadable or not such a description.
    """
    return _read_description(folder / DESCRIPTION_FILE, DatasetDescription, "a data set")


def load_image_set(folder: Path, split: Split, description: DatasetDescription) -> ImageSet:
    """Map one split into memory, read-only, after its bytes have been verified.

    Args:
        folder: The one that `save_dataset` filled.
        split: Which one.
        description: What its dataset.json says.

    Raises:
        DataError: when a file is missing, is not the described one (it has not been parsed then),
            or holds no images and labels of the described shapes and classes.
    """
    described = description.split(split)
    num, num_classes = described.num_images, len(description.class_names)
    images_path, labels_path = folder / split / IMAGES_FILE, folder / split / LABELS_FILE
    images = _load_array(images_path, described.images_sha256)
    _require(images, np.dtype(np.uint8), (num, *description.image_shape), images_path)
    labels = _load_array(labels_path, described.labels_sha256)
    _require(labels, np.dtype(np.int64), (num,), labels_path)
    if not 0 <= labels.min() <= labels.max() < num_classes:
        raise DataError(
            f"{labels_path}: labels must be from 0 to {num_classes - 1} "
            f"(got {labels.min()} to {labels.max()})"
        )
    return ImageSet(images, labels)


def save_novel(
    folder: Path, sets: Mapping[str, UInt8[np.ndarray, "_ channels height width"]]
) -> None:
    """Write images that a model should find novel; equal arguments give equal bytes.

    They stand apart from the data set's own description, on which trainings depend.

    Args:
        folder: The one that `save_dataset` filled.
        sets: Images of the data set's shape, by the name of where they are from; may be empty.
    """
    described = {
        name: NovelDescription(
            num_images=len(images),
            images_sha256=_save_array(folder / NOVEL_FOLDER / name / IMAGES_FILE, images),
        )
        for name, images in sets.items()
    }
    description = _NovelDescriptions(sets=described)
    write_json(folder / NOVEL_FOLDER / NOVEL_FILE, description.model_dump(mode="json"))


def load_novel(
    folder: Path, description: DatasetDescription
) -> dict[str, UInt8[np.ndarray, "_ channels height width"]]:
    """Map all sets that `save_novel` wrote into memory, verified as `load_image_set` does.

    Args:
        folder: The one that `save_dataset` filled.
        description: What its dataset.json says.

    Raises:
        DataError: when a file is missing, is not the described one, or holds no images of the
            data set's shape.
    """
    path = folder / NOVEL_FOLDER / NOVEL_FILE
    described = _read_description(path, _NovelDescriptions, "sets of novel images").sets
    sets = {}
    for name, one in described.items():
        images_path = folder / NOVEL_FOLDER / name / IMAGES_FILE
        sets[name] = _load_array(images_path, one.images_sha256)
        form = (one.num_images, *description.image_shape)
        _require(sets[name], np.dtype(np.uint8), form, images_path)
    return sets


def pixel_statistics(
    images: UInt8[np.ndarray, "num channels height width"],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return each channel's mean and population standard deviation on a scale from 0 to 1.

    Sums are taken in integers, so that the result is the same on every platform.
    """
    sums = images.sum(axis=(0, 2, 3), dtype=np.int64)
    sums_of_squares = np.square(images, dtype=np.uint16).sum(axis=(0, 2, 3), dtype=np.int64)
    num = images.size // images.shape[1]
    moments = list(zip(sums.tolist(), sums_of_squares.tolist(), strict=True))
    means = tuple(total / (num * _MAX_PIXEL) for total, _ in moments)
    variances = ((num * squares - total**2) / (num * _MAX_PIXEL) ** 2 for total, squares in moments)
    return means, tuple(map(math.sqrt, variances))


def _read_description(path: Path, description_type: type[D], what: str) -> D:
    try:
        return description_type.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise DataError(f"{path}: must describe {what} ({key}: {first['msg']})") from None


def _save_split(folder: Path, image_set: ImageSet) -> SplitDescription:
    return SplitDescription(
        num_images=len(image_set),
        images_sha256=_save_array(folder / IMAGES_FILE, image_set.images),
        labels_sha256=_save_array(folder / LABELS_FILE, image_set.labels),
    )


def _save_array(path: Path, array: Shaped[np.ndarray, "..."]) -> str:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    write_atomically(path, buffer.getvalue())
    return hashlib.sha256(buffer.getbuffer()).hexdigest()


def _load_array(path: Path, expected_sha256: str) -> Shaped[np.ndarray, "..."]:
    try:
        found = sha256_of(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if found != expected_sha256:
        raise DataError(f"{path}: sha256 must be {expected_sha256} (got {found})")
    try:
        return np.asarray(np.lib.format.open_memmap(path, mode="r"))
    except Exception as error:  # bytes that are no array may raise anything
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: must be an array in numpy's format ({reason})") from None


def _require(
    array: Shaped[np.ndarray, "..."], dtype: np.dtype[Any], shape: tuple[int, ...], path: Path
) -> None:
    if (array.dtype, array.shape) != (dtype, shape):
        raise DataError(
            f"{path}: must be {dtype} of shape {list(shape)} "
            f"(got {array.dtype} of shape {list(array.shape)})"
        )
