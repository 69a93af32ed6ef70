"""What tests share: one thread, and parameters and images small enough for seconds."""

import copy
import sys

import pytest
import torch
from hypothesis import HealthCheck, settings

from diptych.cnn.params import CnnTrainingParams
from diptych.images.batches import ResidentSet
from diptych.optimization.compute import Compute
from diptych.optimization.resume import State
from diptych.vae.params import VaeTrainingParams

# How long a generated case takes says more about what else the machine does.
settings.register_profile(
    "shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take minutes: no worker is to be left alone with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("pipeline") is None)


OPTIMIZATION = {
    "num_epochs": 2,
    "batch_size": 4,
    "optimizer": "muon",
    "learning_rate": 0.01,
    "muon_learning_rate": 0.02,
    "weight_decay": 0.01,
    "schedule": "one_cycle",
    "warmup_fraction": 0.25,
    "seed": 0,
}
CNN = {
    **OPTIMIZATION,
    "architecture": "compact",
    "width": 4,
    "num_blocks": 1,
    "num_members": 1,
    "pruned_fraction": 0.0,
    "label_smoothing": 0.0,
    "max_shift_pixels": 0.0,
    "max_rotation_degrees": 0.0,
    "max_scale_change": 0.0,
    "mirror": False,
    "view_shift_pixels": 0.0,
    "view_rotation_degrees": 0.0,
    "view_scale_change": 0.0,
}
VAE = {
    **OPTIMIZATION,
    "architecture": "convolutional",
    "num_latents": 3,
    "width": 2,
    "num_hidden": 8,
    "neighbourhood_radius_pixels": 0,
    "num_neighbourhood_features": 4,
    "likelihood": "bernoulli",
    "binarization": "dynamic",
}


@pytest.fixture(autouse=True)
def _one_thread():
    """Many processes test at once, and some tests choose a number of threads."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_path(monkeypatch):
    """MLflow looks for modules in a loaded model first, for good; programs of tests would too."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def cpu():
    return Compute(torch.device("cpu"), torch.float32)


@pytest.fixture
def cnn_params():
    """Small parameters of a classifier, with changes."""
    return lambda **changes: CnnTrainingParams.model_validate({**CNN, **changes})


@pytest.fixture
def vae_params():
    """Small parameters of an autoencoder, with changes."""
    return lambda **changes: VaeTrainingParams.model_validate({**VAE, **changes})


@pytest.fixture
def striped():
    """Images of three classes, told apart by the row of a white stripe; the ground is dim noise."""

    def build(num_images: int, height: int = 8, width: int = 8, seed: int = 0) -> ResidentSet:
        noise = torch.Generator().manual_seed(seed)
        shape = (num_images, 1, height, width)
        images = torch.randint(0, 64, shape, generator=noise, dtype=torch.uint8)
        labels = torch.arange(num_images) % 3
        for image, label in zip(images, labels.tolist(), strict=True):
            image[:, 2 * label + 1] = 255
        return ResidentSet(images, labels)

    return build


class Interrupted(Exception):  # noqa: N818
    """The training was stopped on purpose."""


class InterruptingCheckpoints:
    """Keeps a copy of the state after a given step, and stops the training there.

    Args:
        stop_after: Number of steps, over all epochs; None: never stop.
    """

    Interrupted = Interrupted

    def __init__(self, stop_after: int | None = None) -> None:
        self.kept: State | None = None
        self._stop_after = stop_after
        self._num_steps = 0

    def load(self) -> State | None:
        return self.kept

    def is_due(self) -> bool:
        self._num_steps += 1
        return self._num_steps == self._stop_after

    def save(self, state: State) -> None:
        self.kept = copy.deepcopy(dict(state))
        raise Interrupted

    def going_on(self) -> "InterruptingCheckpoints":
        """What the next training finds."""
        following = InterruptingCheckpoints()
        following.kept = self.kept
        return following


@pytest.fixture
def stopped_after():
    """Make checkpoints that stop a training after a number of steps."""
    return InterruptingCheckpoints
