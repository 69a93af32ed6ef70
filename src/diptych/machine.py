"""Which machine this process runs on, and who runs it; importing this module asks nothing."""

import getpass
import os
import platform
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path


def describe_machine() -> str:
    """Return device, cores and torch version in one line, as `Xeon, 2 cores, torch 2.15.0`."""
    cores = num_cores()
    parts = [cpu_model(), f"{cores} core{'s' if cores > 1 else ''}", f"torch {version('torch')}"]
    return ", ".join(filter(None, [_gpu_model(), *parts]))


def num_cores() -> int:
    """Return how many cores this process may use, which a container or a queue may limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_model() -> str:
    """Return the processor's name as the system tells it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def user_name() -> str:
    """Return who runs this process: a name, or the number of an account that has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())


def _gpu_model() -> str | None:
    import torch  # takes seconds

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "Apple GPU" if torch.backends.mps.is_available() else None
