"""Which pipeline execution a stage belongs to: stages are separate processes without a name for it.

`dvc repro`, `dvc exp run` and a queue worker's `dvc exp exec-run` are each one process that starts
the stages of one execution, so the nearest DVC among a stage's ancestors identifies it.
"""

import hashlib
import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePath

import psutil


def find_execution() -> psutil.Process | None:
    """Return the DVC process that started this one, or None when there is none."""
    with suppress(psutil.Error):
        for ancestor in psutil.Process().parents():
            if _is_dvc(_command_line(ancestor)):
                return ancestor
    return None


def is_running(process: psutil.Process) -> bool:
    """Tell whether a process still runs; one that has ended but was not waited for does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def process_key(process: psutil.Process) -> str:
    """Return what tells a process from every other one: host, boot, number and start."""
    start_seconds = _start_seconds_since_boot(process)
    identity = f"{platform.node()}\n{boot_id()}\n{process.pid}\n{start_seconds:.2f}"
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def boot_id() -> str:
    """Return what the system calls the time since it was started; empty where it has no name."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _start_seconds_since_boot(process: psutil.Process) -> float:
    """Return when a process was started; unlike the time of day, no clock adjustment changes it."""
    try:
        status = Path(f"/proc/{process.pid}/stat").read_bytes()
    except OSError:  # not Linux, or the process has ended
        return process.create_time() - psutil.boot_time()
    # The 22nd field, in ticks; the second, the program's name in brackets, may hold anything.
    return int(status.rpartition(b")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")


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
