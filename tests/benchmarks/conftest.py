"""What tests of the benchmarks share: small images and presets, and results made by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.cases import Case
from benchmarks.results import Conditions, MachineResults, Measurement
from diptych.images.arrays import ImageSet, Split, save_dataset
from diptych.params import read_yaml

ROOT = Path(__file__).parents[2]
NUM_IMAGES: dict[Split, int] = {"train": 64, "validation": 24, "test": 30}
SMALL = {
    "compute": {"device": "cpu", "precision": "float32", "num_threads": 1},
    "train_cnn": {"width": 2, "num_blocks": 1, "num_epochs": 2, "batch_size": 16},
    "train_vae": {"num_latents": 3, "width": 2, "num_hidden": 8, "num_epochs": 2, "batch_size": 16},
}


@pytest.fixture(scope="session")
def presets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Presets of small models, `default`, `fast` and `brisk`, beside their params.yaml."""
    return write_settings(tmp_path_factory.mktemp("settings"))


@pytest.fixture
def presets_without_sources(tmp_path: Path) -> Path:
    """The same, but images come from nowhere."""
    return write_settings(tmp_path, dataset={"sources": [str(tmp_path / "nowhere")]})


def write_settings(folder: Path, **changes: dict[str, Any]) -> Path:
    """Write presets and the shipped params.yaml, made small and changed; return the presets."""
    params = read_yaml(ROOT / "params.yaml")
    for section, values in [*SMALL.items(), *changes.items()]:
        params[section] |= values
    (folder / "params.yaml").write_text(json.dumps(params), encoding="utf-8")
    (folder / "presets").mkdir()
    for name, num_epochs in (("default", 2), ("fast", 1), ("brisk", 1)):
        preset = json.dumps({"train_cnn": {"num_epochs": num_epochs}})
        (folder / "presets" / f"{name}.yaml").write_text(preset, encoding="utf-8")
    return folder / "presets"


@pytest.fixture(scope="session")
def processed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A processed data set called mnist: noise, the class told by the position of a bright row."""
    folder = tmp_path_factory.mktemp("processed")
    random = np.random.default_rng(0)

    def image_set(num_images: int) -> ImageSet:
        images = random.integers(0, 100, (num_images, 1, 12, 12), np.uint8)
        labels = np.arange(num_images) % 3
        images[np.arange(num_images), :, 2 * labels + 1] = 255
        return ImageSet(images, labels)

    sets = {split: image_set(num_images) for split, num_images in NUM_IMAGES.items()}
    save_dataset(folder, "mnist", ("a", "b", "c"), sets)
    return folder


@pytest.fixture
def cnn_case() -> Case:
    """A classifier of 3 seeds, 10 seconds each."""
    return Case("cnn/default", "cnn", "default", num_seeds=3, cpu_seconds=10.0, gpu_seconds=1.0)


@pytest.fixture
def vae_case() -> Case:
    """An autoencoder of 3 seeds, 100 seconds each."""
    return Case(
        "vae/default",
        "vae",
        "default",
        num_seeds=3,
        cpu_seconds=100.0,
        gpu_seconds=1.0,
        num_importance_samples=4,
    )


@pytest.fixture
def machine() -> MachineResults:
    """A machine without results."""
    return MachineResults(hardware="Abacus, 2 cores", processor="cpu", system="Linux", cases={})


@pytest.fixture
def conditions() -> Conditions:
    """Conditions of some day."""
    return Conditions(
        fingerprint="0" * 64, num_threads=1, precision="float32", versions={"torch": "2.15.0"}
    )


@pytest.fixture
def measured():
    """A measurement: its seed, wall seconds and figures."""

    def build(seed: int, wall_seconds: float = 10.0, **figures: float) -> Measurement:
        return Measurement(
            seed=seed,
            figures=figures or {"accuracy": 0.5},
            wall_seconds=wall_seconds,
            git_commit="abc",
        )

    return build
