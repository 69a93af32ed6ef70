"""What it costs a default training that it can be interrupted."""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from benchmarks.settings import Setting
from benchmarks.trainings import (
    ignore_epoch,
    import_all_of_torch,
    load_data,
    new_cnn,
    new_vae,
    timed,
)
from diptych.cnn.train import train_cnn
from diptych.optimization.compute import set_up_compute
from diptych.optimization.params import CheckpointParams
from diptych.optimization.resume import Checkpoints, State
from diptych.params import check_section
from diptych.resuming import CheckpointFolder
from diptych.vae.train import train_vae

T = TypeVar("T")


class TimedCheckpoints:
    """Passes everything on and adds up the time that it takes.

    On a GPU a state's copy also waits for the steps before it, as it does in a stage.

    Args:
        checkpoints: Where the states are kept.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self.seconds = 0.0
        """Spent on loading, asking and saving."""
        self.num_saved = 0
        """States written."""

    def load(self) -> State | None:
        """Return the state to go on from."""
        return self._timed(self._checkpoints.load)

    def is_due(self) -> bool:
        """Tell whether to save now."""
        return self._timed(self._checkpoints.is_due)

    def save(self, state: State) -> None:
        """Keep a state."""
        self._timed(lambda: self._checkpoints.save(state))
        self.num_saved += 1

    def _timed(self, work: Callable[[], T]) -> T:
        start = time.perf_counter()
        result = work()
        self.seconds += time.perf_counter() - start
        return result


def measure_cnn(setting: Setting) -> dict[str, float]:
    """Train a classifier and keep its states as a stage does."""
    compute = set_up_compute(setting.compute())
    data = load_data(setting.processed, compute)
    model, params = new_cnn(setting.cnn(), data.description), setting.cnn()
    return _measure(
        setting,
        lambda checkpoints: timed(
            lambda: train_cnn(
                model, data.train, data.validation, params, compute, ignore_epoch, checkpoints
            ),
            compute,
        )[1],
    )


def measure_vae(setting: Setting) -> dict[str, float]:
    """Train an autoencoder and keep its states as a stage does."""
    compute = set_up_compute(setting.compute())
    data = load_data(setting.processed, compute)
    model, params = new_vae(setting.vae(), data.description), setting.vae()
    return _measure(
        setting,
        lambda checkpoints: timed(
            lambda: train_vae(
                model, data.train, data.validation, params, compute, ignore_epoch, checkpoints
            ),
            compute,
        )[1],
    )


def _measure(setting: Setting, train: Callable[[Checkpoints], float]) -> dict[str, float]:
    """Return the figures of a training that gets checkpoints and returns its seconds."""
    params = check_section("params", setting.content, "checkpoints", CheckpointParams)
    import_all_of_torch()
    with TemporaryDirectory(prefix="diptych-checkpoints-") as folder:
        kept = CheckpointFolder(Path(folder), "0" * 16, params.interval_seconds, "benchmark")
        checkpoints = TimedCheckpoints(kept)
        seconds = train(checkpoints)
    return {
        "training_seconds": seconds,
        "num_checkpoints": checkpoints.num_saved,
        "checkpointing_seconds": checkpoints.seconds,
        "share_of_training": checkpoints.seconds / seconds,
    }
