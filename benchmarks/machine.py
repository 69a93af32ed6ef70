"""What a figure was measured on and with."""

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.results import MachineResults
from diptych.machine import cpu_model, num_cores
from diptych.optimization.compute import has_fast_bfloat16

COMMIT_FILE = "COMMIT"
"""Names the commit in a bundle, which has no git."""

_DIRTY = "-dirty"
_CODE = ("*.py", "*.yaml", "requirements.lock")


def describe_machine(device: torch.device) -> MachineResults:
    """Return the machine that computes on a device, without results yet."""
    return MachineResults(
        hardware=_hardware(device),
        processor="cpu" if device.type == "cpu" else "gpu",
        system=f"{platform.system()} {platform.machine()}",
        cases={},
    )


def file_name(hardware: str) -> str:
    """Return the name of the result file of a piece of hardware."""
    return re.sub(r"[^a-z0-9]+", "-", hardware.lower()).strip("-") + ".json"


def versions_of(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of Python and of installed packages."""
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def pinned_versions(lock: Path, packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of packages that a file of pinned requirements has installed elsewhere.

    Raises:
        OSError: when there is no such file.
    """
    text = lock.read_text(encoding="utf-8")
    pins = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE))
    return {package: pins[package] for package in packages}


def git_commit(root: Path) -> str:
    """Return the commit of the code under a folder, `-dirty` when files of code have changed."""
    named = root / COMMIT_FILE
    if named.exists():
        return named.read_text(encoding="utf-8").strip()
    commit = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--", *_CODE)
    return f"{commit}{_DIRTY}" if commit and changed else commit or "unknown"


def is_dirty(commit: str) -> bool:
    """Tell whether `git_commit` has found changes that no commit holds."""
    return commit.endswith(_DIRTY)


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"GPU of {cpu_model()}"
    cores = num_cores()
    # Of one name there are processors of several kinds, the slower ones without bfloat16.
    fastest = "bfloat16" if has_fast_bfloat16(device) else "float32"
    return f"{cpu_model()} ({fastest}), {cores} core{'s' if cores > 1 else ''}"


def _git(root: Path, *arguments: str) -> str:
    # A git hook names its repository to every git that it starts.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            env=environment,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
