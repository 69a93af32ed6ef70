"""Trainings as processes: forks of one that has imported what a training and a recorder need.

As a program: takes a training per line of its input, as JSON, and starts it at once; ends behind
the last of them. What a training is made of is real; only that a recorder is a fork, too, is not:
starting Python and importing mlflow would take far longer than what is tried here.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import psutil

SECONDS_FILE = "seconds"
PARAMS = "dataset: {name: mnist}\ntrain: {learning_rate: 1e-3}\n"
METRICS = ("loss", "bad")


@dataclass(frozen=True, slots=True)
class Training:
    """A stage that waits for its accelerator and tells two figures behind every step.

    Attributes:
        root: The project's folder.
        uri: The store's address; empty for tracking switched off.
        num_steps: How many.
        step_seconds: How long each takes.
    """

    root: str
    uri: str
    num_steps: int
    step_seconds: float

    @property
    def name(self) -> str:
        """What its run is called."""
        return Path(self.root).name

    @property
    def seconds(self) -> float | None:
        """How long it took, from the start of its run to the end; None before."""
        path = Path(self.root, SECONDS_FILE)
        return float(path.read_text()) if path.exists() else None


class Trainer:
    """Starts trainings."""

    def __init__(self, orders: IO[str]) -> None:
        self._orders = orders

    def start(self, training: Training) -> None:
        """Start one; does not wait for it."""
        root = Path(training.root)
        (root / ".dvc").mkdir(parents=True)
        (root / "params.yaml").write_text(PARAMS)
        self._orders.write(json.dumps(asdict(training)) + "\n")
        self._orders.flush()


@contextmanager
def started_trainer() -> Iterator[Trainer]:
    """Give what starts trainings; all that still run in the end are killed."""
    command = [sys.executable, "-m", "tests.faults.trainings"]
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MLFLOW_", "DVC_", "DIPTYCH_"))
    } | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Trainer(process.stdin)
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.stdin.close()
        process.wait(60)


def _train(training: Training) -> None:
    from diptych.tracking.runs import stage_run

    os.chdir(training.root)
    os.environ["DIPTYCH_TRACKING"] = "on" if training.uri else "off"
    if training.uri:
        os.environ["MLFLOW_TRACKING_URI"] = training.uri
    started = time.monotonic()
    with stage_run(training.name, Path("params.yaml"), ["train"]) as tracker:
        for step in range(1, training.num_steps + 1):
            time.sleep(training.step_seconds)
            tracker.log_metrics({"loss": 1 / step, "bad": float("nan")}, step)
    seconds = time.monotonic() - started
    Path(f"{SECONDS_FILE}.new").write_text(str(seconds))
    Path(f"{SECONDS_FILE}.new").rename(SECONDS_FILE)


def _fork_recorder(folder: Path, store: object, root: Path, pipeline: object) -> None:
    from diptych.locks import try_lock
    from diptych.tracking.process import LOCK_FILE, main

    with (folder / LOCK_FILE).open("ab") as lock:
        assert try_lock(lock)
        if os.fork() == 0:
            os.setpgid(0, 0)
            _close_all_but(lock.fileno())
            main([str(root), str(folder)])


def _close_all_but(kept: int) -> None:
    """Let go of what a program that is started anew does not have, the journal's lock above all."""
    os.closerange(3, kept)
    os.closerange(kept + 1, 1024)


def _serve(orders: IO[str]) -> None:
    # What trainings and recorders need, they find imported.
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    import diptych.tracking.mlflow_tracker
    import diptych.tracking.packing

    diptych.tracking.packing.prepare_packing()
    vars(diptych.tracking.mlflow_tracker)["start_recorder"] = _fork_recorder
    print("ready", flush=True)
    num_children = 0
    for line in orders:
        num_children += 1
        if os.fork() == 0:
            try:
                _train(Training(**json.loads(line)))
            finally:
                os._exit(0)
    for _ in range(num_children):
        os.wait()


if __name__ == "__main__":
    _serve(sys.stdin)
