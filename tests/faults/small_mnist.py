"""A few images under MNIST's name, for projects that download and split what they train on."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diptych.images.datasets import Dataset, DatasetFile
from diptych.images.idx import write_idx

_NUM_TRAINING, _NUM_TEST = 88, 30
_SIDE_PIXELS = 12
NUM_VALIDATION = 24
"""Of the training file's images."""


@dataclass(frozen=True, slots=True)
class SmallDataset:
    """Files of noise, the class told by a bright row, and what is known about them.

    Attributes:
        facts: As of a published data set.
        contents: The uncompressed IDX files by name.
    """

    facts: Dataset
    contents: dict[str, bytes]

    def write(self, folder: Path) -> Path:
        """Make a folder that is a source of it; return the folder."""
        folder.mkdir(parents=True)
        for name, content in self.contents.items():
            (folder / name).write_bytes(content)
        return folder

    def code(self) -> str:
        """Python that has the project's module of published data sets take it for MNIST."""
        return f"\nDATASETS = MappingProxyType({{**DATASETS, 'mnist': {self.facts!r}}})\n"


def small_dataset(name: str, seed: int) -> SmallDataset:
    """Make a data set; another seed gives other files under the same names."""
    source = np.random.default_rng(seed)
    contents: dict[str, bytes] = {}
    for part, num_images in (("train", _NUM_TRAINING), ("t10k", _NUM_TEST)):
        images = source.integers(0, 100, (num_images, _SIDE_PIXELS, _SIDE_PIXELS), np.uint8)
        labels = np.arange(num_images) % 3
        images[np.arange(num_images), 2 * labels + 1] = 255
        contents[f"{part}-images-idx3-ubyte"] = write_idx(images)
        contents[f"{part}-labels-idx1-ubyte"] = write_idx(labels.astype(np.uint8))
    files = [
        DatasetFile(name, file, len(content), idx_sha256=hashlib.sha256(content).hexdigest())
        for file, content in contents.items()
    ]
    return SmallDataset(Dataset(name, ("a", "b", "c"), (), *files), contents)
