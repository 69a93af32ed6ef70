"""Which pipeline execution a stage belongs to: stages are separate processes without a name for it.

`dvc repro`, `dvc exp run` and a queue worker's `dvc exp exec-run` are each one process that starts
the stages of one execution, so the nearest DVC among a stage's ancestors identifies it.
"""

import hashlib
import platform
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePath

import psutil


def find_execution() -> str | None:
    """Return a key of the DVC process that started this one, or None when there is none."""
    with suppress(psutil.Error):
        for ancestor in psutil.Process().parents():
            if _is_dvc(_command_line(ancestor)):
                return process_key(ancestor)
    return None


def process_key(process: psutil.Process) -> str:
    """Return what tells a process from every other one: host, boot, number and start."""
    # Seconds since boot: unlike the time of day, no clock adjustment changes it.
    start = process.create_time() - psutil.boot_time()
    identity = f"{platform.node()}\n{_boot()}\n{process.pid}\n{start:.2f}"
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def _is_dvc(command_line: Sequence[str]) -> bool:
    """Tell `python [options] .../dvc ...`, `python -m dvc ...` and a `dvc` executable."""
    if not command_line:
        return False
    program, *arguments = command_line
    if not PurePath(program).name.startswith("python"):
        return PurePath(program).stem == "dvc"
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "-m":
            return next(remaining, "") == "dvc"
        if argument in ("-X", "-W"):
            next(remaining, None)
        elif not argument.startswith("-"):
            path = PurePath(argument)
            return path.stem == "dvc" or path.parts[-2:] == ("dvc", "__main__.py")
    return False


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""
