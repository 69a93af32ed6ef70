"""A stage's training that can be stopped at any step and goes on there when it is started again."""

import contextlib
import hashlib
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from diptych.checkpoints import DIGEST_SUFFIX, load_state, save_state
from diptych.model_files import CheckpointError, fingerprint
from diptych.optimization.compute import Compute
from diptych.optimization.resume import State
from diptych.stage import only_process

CHECKPOINTS_FOLDER = Path(".diptych", "checkpoints")
"""Where trainings are kept until they are done: in the project, and no stage's output."""

_NUM_KEPT = 2
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def training_fingerprint(
    params: Mapping[str, Any], dataset_sha256: str, compute: Compute, *folders: str
) -> str:
    """Return what decides a training: on one machine, every bit of it.

    Args:
        params: Of the training, as JSON values.
        dataset_sha256: Of the data.
        compute: Where it happens.
        *folders: Of the package, that hold its code.
    """
    package = Path(__file__).parent
    files = sorted(file for folder in folders for file in (package / folder).rglob("*.py"))
    code = {
        file.relative_to(package).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }
    return fingerprint(
        {
            "params": params,
            "dataset_sha256": dataset_sha256,
            "compute": [str(compute.device), str(compute.dtype), torch.get_num_threads()],
            "torch": torch.__version__,
            "code": code,
        }
    )


class CheckpointFolder:
    """Keeps the newest two states of one training in a folder of their own.

    Args:
        folder: Of all trainings of an output; one process at a time.
        identity: What decides every bit of the training; another's state is never used.
        interval_seconds: Between two states.
        name: Of the training, in messages.
    """

    def __init__(self, folder: Path, identity: str, interval_seconds: float, name: str) -> None:
        self._all = folder
        self._folder = folder / identity[:16]
        self._interval_seconds = interval_seconds
        self._name = name
        self._next = time.monotonic() + interval_seconds
        self._number = 0
        self._signal: int | None = None
        self._has_told = False

    def load(self) -> State | None:
        """Return the newest state that is whole; say so, and what is passed over."""
        self._note_others()
        for path in reversed(self._paths()):
            self._number = max(self._number, int(path.stem))
            try:
                state = load_state(path)
            except CheckpointError as error:
                self._say(f"{error}; the one before it is taken")
                _delete(path)
                continue
            self._say("goes on where it was stopped")
            return state
        return None

    def is_due(self) -> bool:
        """Tell whether the interval is over, or the process is to end."""
        return self._signal is not None or time.monotonic() >= self._next

    def save(self, state: State) -> None:
        """Write a state and delete the one before the last; a full disk costs a line.

        Raises:
            KeyboardInterrupt: after it, if the process got a SIGINT.
            SystemExit: after it, if the process got a SIGTERM.
        """
        try:
            save_state(self._folder / f"{self._number + 1:06}.safetensors", state)
        except OSError as error:
            reason = f"no checkpoint ({error.strerror})"
            stopped = f"stopped; the same command goes on from {self._place()}"
            self._say(f"{reason}; {'the training goes on' if self._signal is None else stopped}")
            self._has_told = self._signal is not None
        else:
            self._number += 1
            for path in self._paths()[:-_NUM_KEPT]:
                _delete(path)
            if self._signal is not None:
                self._say("stopped; the same command goes on from here")
                self._has_told = True
        self._next = time.monotonic() + self._interval_seconds
        self._stop_if_asked()

    @contextlib.contextmanager
    def stoppable(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM, in the block, as the wish to stop behind the present step.

        A SIGINT after either ends the process at once.

        Raises:
            KeyboardInterrupt: behind the block, if a SIGINT came after the last step.
            SystemExit: likewise after a SIGTERM.
        """
        before = {number: signal.signal(number, self._note_signal) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        self._stop_if_asked()

    def say_how_to_go_on(self) -> None:
        """Say how, if the process ends outside of the training's steps and nobody has said it."""
        if not self._has_told:
            self._say(f"stopped; the same command goes on from {self._place()}")

    def delete(self) -> None:
        """Delete the states of this training and of others of the same output: it is done."""
        shutil.rmtree(self._all, ignore_errors=True)

    def _note_signal(self, number: int, _frame: FrameType | None) -> None:
        """Take a signal: the first is a wish, Ctrl-C after it an order.

        A second SIGTERM is none: who terminates DVC and the stage causes two.
        """
        is_order = self._signal is not None and number == signal.SIGINT
        self._signal = self._signal or number
        if is_order:
            self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        """End the process as the signal that it got asks for; do nothing if it got none."""
        if self._signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self._signal is not None:
            sys.exit(128 + self._signal)

    def _place(self) -> str:
        """Say from where the same command will go on."""
        whole = [path for path in self._paths() if path.with_suffix(DIGEST_SUFFIX).is_file()]
        return "the last checkpoint" if whole else "the beginning"

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("[0-9]*.safetensors"))

    def _note_others(self) -> None:
        others = [path for path in self._all.glob("*/*") if path.parent != self._folder]
        if others and not self._paths():
            self._say("a checkpoint of other params, data or code is not used")

    def _say(self, text: str) -> None:
        print(f"{self._name}: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def resumable_training(
    output: Path, identity: str, interval_seconds: float
) -> Iterator[CheckpointFolder]:
    """Keep a training's states while the block runs, and delete them when it has succeeded.

    Nobody else writes the output meanwhile.

    Args:
        output: The model's folder.
        identity: As `training_fingerprint` returns it.
        interval_seconds: Between two states.

    Raises:
        BusyError: when another process writes the same output and goes on doing so.
    """
    folder = CHECKPOINTS_FOLDER / output
    lock = folder.with_name(f"{output.name}.lock")
    with only_process(lock, f"{output}: must have one writer", "training it"):
        checkpoints = CheckpointFolder(folder, identity, interval_seconds, output.as_posix())
        try:
            yield checkpoints
        except (KeyboardInterrupt, SystemExit):
            checkpoints.say_how_to_go_on()
            raise
        checkpoints.delete()


def _delete(state: Path) -> None:
    state.with_suffix(DIGEST_SUFFIX).unlink(missing_ok=True)
    state.unlink(missing_ok=True)
