"""Where a run comes from: the tags that say which code ran, on what, started by whom."""

import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_CODE = ("*.py", "dvc.yaml", "pyproject.toml", "requirements.lock")
_PACKAGES = ("diptych", "dvc", "mlflow", "numpy", "torch")


def source_tags(workspace: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of stage and parent alike: git commit, DVC experiment, user.

    Args:
        workspace: The folder whose code runs.
        environment: The process's environment variables; DVC sets DVC_EXP_NAME and others.
    """
    named = {
        "dvc.experiment": environment.get("DVC_EXP_NAME"),
        "dvc.baseline": environment.get("DVC_EXP_BASELINE_REV"),
        "mlflow.source.git.commit": _git(workspace, "rev-parse", "HEAD"),
        "mlflow.user": environment.get("USER"),
        "mlflow.source.type": "LOCAL",
    }
    # Code alone: DVC rewrites dvc.lock and the metrics while the pipeline runs.
    changes = _git(workspace, "status", "--porcelain", "--", *_CODE)
    dirty = {} if changes is None else {"diptych.git_dirty": str(bool(changes)).lower()}
    return {key: value for key, value in named.items() if value} | dirty


def machine_tags() -> dict[str, str]:
    """Return hardware and versions."""
    return {
        "diptych.host": platform.node(),
        "diptych.platform": platform.platform(),
        "diptych.cpu": _cpu_model(),
        "diptych.num_cpus": str(os.cpu_count()),
        "diptych.python": platform.python_version(),
        **{f"diptych.version.{name}": _version(name) for name in _PACKAGES},
    }


def cost_tags(seconds: float) -> dict[str, str]:
    """Return what is known at the end: time, memory, and what torch was set to, if it was used."""
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kib = kib // 1024 if sys.platform == "darwin" else kib
    tags = {"diptych.seconds": f"{seconds:.2f}", "diptych.peak_memory_mib": str(kib // 1024)}
    torch = sys.modules.get("torch")
    if torch is not None:
        tags["diptych.num_threads"] = str(torch.get_num_threads())
        if torch.cuda.is_initialized():
            tags["diptych.gpu"] = torch.cuda.get_device_name()
    return tags


def _git(folder: Path, *arguments: str) -> str | None:
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return done.stdout.strip()
    return None


def _cpu_model() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
