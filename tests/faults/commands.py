"""Commands within this process: what they print and how they end, also without root's rights."""

import contextlib
import ctypes
import functools
import importlib.util
import io
import os
import random
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from diptych.cli import app
from diptych.stage import run_command, run_stage
from tests.faults.outcomes import not_tried
from tests.stages.conftest import ROOT, STAGES

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command has ended."""

    code: int
    stdout: str
    stderr: str

    def is_refusal(self, *named: str) -> bool:
        """Tell whether it is exactly one line on stderr, that names all this, with exit code 2."""
        is_one_line = self.stderr.endswith("\n") and self.stderr[:-1].isprintable()
        return self.code == 2 and is_one_line and all(name in self.stderr for name in named)

    def last_line_is_refusal(self, *named: str) -> bool:
        """Tell the same of the last line: a training has shown its epochs before."""
        if "Traceback" in self.stderr:
            return False
        return Ended(self.code, "", self.stderr.splitlines(keepends=True)[-1]).is_refusal(*named)


def end_of_stage(folder: Path, stage: str, changes: Mapping[str, Path] | None = None) -> Ended:
    """Run a stage in a folder as its command, with the paths of dvc.yaml but for these changes."""
    paths = {option: str(path) for option, path in {**paths_of(stage), **(changes or {})}.items()}
    words = [f"{stage}.py", *(word for option in paths.items() for word in option)]
    return _end_of(folder, words, lambda: run_stage(main_of(stage)))


def end_of_diptych(folder: Path, *words: str) -> Ended:
    """Run the `diptych` command in a folder."""
    return _end_of(folder, ["diptych", *words], lambda: run_command(app))


def paths_of(stage: str) -> dict[str, Path]:
    """Return what each option of a stage is in dvc.yaml."""
    words = shlex.split(STAGES[stage]["cmd"])[2:]
    return dict(zip(words[::2], map(Path, words[1::2]), strict=True))


@functools.cache
def main_of(stage: str) -> Callable[..., None]:
    """Return the function that a stage is, of a module that is loaded once."""
    path = ROOT / "stages" / f"{stage}.py"
    spec = importlib.util.spec_from_file_location(f"stage_{stage}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main: Callable[..., None] = module.main
    return main


def sample(population: Sequence[T], num: int, seed: int = 0) -> list[T]:
    """Return some of them, or all if so many are asked for; the same ones each time."""
    return random.Random(seed).sample(population, min(num, len(population)))


@contextlib.contextmanager
def without_rights() -> Iterator[None]:
    """Have file permissions hold for root too, whose process may otherwise open anything."""
    if os.geteuid() != 0:
        yield
        return
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # linux/capability.h, version 3; this thread
    rights = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    libc = ctypes.CDLL(None)
    if libc.capget(header, rights) != 0:
        not_tried("B3", "no permission", "root's rights cannot be put down here")
    effective = rights[0], rights[3]
    rights[0] = rights[3] = 0
    assert libc.capset(header, rights) == 0
    try:
        yield
    finally:
        rights[0], rights[3] = effective
        assert libc.capset(header, rights) == 0


def _end_of(folder: Path, words: list[str], run: Callable[[], None]) -> Ended:
    stdout, stderr = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    code = 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        patch.chdir(folder)
        patch.setattr(sys, "argv", words)
        patch.setenv("DIPTYCH_TRACKING", "off")
        try:
            run()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except Exception:
            code = 1
            traceback.print_exc()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return Ended(code, stdout.getvalue(), stderr.getvalue())
