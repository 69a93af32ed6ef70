"""Stages as child processes that need not import torch anew: they are forks of one that has."""

import importlib.util
import multiprocessing
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diptych.checkpoints import load_state
from tests.faults.waiting import wait_until
from tests.stages.conftest import ROOT, STAGES

_CONTEXT = multiprocessing.get_context("forkserver")
# The modules of the stages; what runs in the test's own process is not touched.
_CONTEXT.set_forkserver_preload(
    [
        "torch._dynamo",
        "diptych.resuming",
        "diptych.models",
        "diptych.cnn.train",
        "diptych.vae.train",
        "diptych.tracking.runs",
        "tests.faults.children",
    ]
)


class Child:
    """A stage that runs in a folder, with the paths of dvc.yaml.

    Args:
        folder: The project.
        stage: Its name.
        environment: Variables that it gets beside this process's.
        prepare: What it does before all else; None: nothing.
    """

    def __init__(
        self,
        folder: Path,
        stage: str,
        environment: Mapping[str, str],
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self._stderr = folder / f"stderr-{time.monotonic_ns()}"
        words = [str(ROOT / "stages" / f"{stage}.py"), *shlex.split(STAGES[stage]["cmd"])[2:]]
        arguments = (str(folder), words, dict(environment), str(self._stderr), prepare)
        self._process: Any = _CONTEXT.Process(target=_run, args=arguments)
        self._process.start()

    @property
    def pid(self) -> int:
        """The process's number."""
        return int(self._process.pid)

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def end(self, timeout_seconds: float = 60.0) -> tuple[int, str]:
        """Wait for its end; return its exit code, negative after a signal, and its stderr."""
        self._process.join(timeout_seconds)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
            raise TimeoutError(self._stderr.read_text())
        return self._process.exitcode, self._stderr.read_text()


def be_impatient() -> None:
    """Have this process wait but a second for another one that holds what it needs."""
    import diptych.stage

    vars(diptych.stage)["_PATIENCE_SECONDS"] = 1.0


class TorchSaver:
    """Saves a state by `torch.save` over and over, over the old file, and nothing else.

    Args:
        state: The file of a training's state.
        path: Where.
    """

    def __init__(self, state: Path, path: Path) -> None:
        self._first = path.with_name(f"{path.name}.first")
        arguments = (str(state), str(path), str(self._first))
        self._process: Any = _CONTEXT.Process(target=_save_by_torch, args=arguments)
        self._process.start()

    def kill(self, seconds: float) -> None:
        """Kill it so long after it has saved for the first time."""
        assert wait_until(self._first.exists, seconds=60, pause_seconds=0.002)
        time.sleep(seconds)
        self._process.kill()
        self._process.join()


def _save_by_torch(state: str, path: str, first: str) -> None:
    import torch

    content = load_state(Path(state))
    torch.save(content, path)
    Path(first).touch()
    while True:
        torch.save(content, path)


def _run(
    folder: str,
    words: list[str],
    environment: dict[str, str],
    stderr: str,
    prepare: Callable[[], None] | None,
) -> None:
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.chdir(folder)
    os.environ.update(environment)
    sys.argv = words
    if prepare is not None:
        prepare()
    spec = importlib.util.spec_from_file_location("__main__", words[0])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
