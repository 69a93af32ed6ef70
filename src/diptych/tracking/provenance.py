"""Where a run comes from: the tags that say which code ran, on what, started by whom."""

import hashlib
import importlib.metadata
import json
import platform
import re
import resource
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from diptych.files import sha256_of
from diptych.machine import cpu_model, num_cores
from diptych.params import ParamsError, read_yaml

_CODE = ("*.py", "dvc.yaml", "pyproject.toml", "requirements.lock")
_PACKAGES = ("diptych", "dvc", "mlflow", "numpy", "torch")

# As DVC writes dvc.lock. A YAML parser takes longer over that file than all the rest of a start.
_LOCKED_OUTS = re.compile(r"^    outs:\n((?:    - .*\n|      .*\n)+)", re.MULTILINE)
_LOCKED_OUT = re.compile(r"    - path: (.+)\n(?:      .*\n)*?      md5: (\S+)\n")


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


def stage_fingerprint(workspace: Path, stage: str, params: Mapping[str, object]) -> str | None:
    """Return a sha256 over all that decides a stage's outputs: parameters, data and code.

    Args:
        workspace: The folder whose dvc.yaml runs.
        stage: The stage's name in dvc.yaml.
        params: The parameters that it depends on, under dotted keys.

    Returns:
        The fingerprint, in hexadecimal. What another stage has made enters by the hash that
        dvc.lock holds of the whole output, all else by its files' bytes. None when dvc.yaml does
        not describe the stage or a dep cannot be read.
    """
    with suppress(OSError, ParamsError, KeyError, TypeError):
        made = _locked_outs(workspace / "dvc.lock")
        deps = read_yaml(workspace / "dvc.yaml")["stages"][stage]["deps"]
        hashes = {dep: _output_hash(dep, made) or _file_hashes(workspace / dep) for dep in deps}
        inputs = {"stage": stage, "params": params, "deps": hashes}
        text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(text.encode()).hexdigest()
    return None


def machine_tags() -> dict[str, str]:
    """Return hardware and versions."""
    return {
        "diptych.host": platform.node(),
        "diptych.platform": platform.platform(),
        "diptych.cpu": cpu_model(),
        "diptych.num_cpus": str(num_cores()),
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


def _locked_outs(lock: Path) -> dict[str, str]:
    """Return the md5 of every output in dvc.lock; while a stage runs, of those it depends on."""
    if not lock.is_file():
        return {}
    blocks = _LOCKED_OUTS.findall(lock.read_text(encoding="utf-8"))
    return {path: md5 for block in blocks for path, md5 in _LOCKED_OUT.findall(block)}


def _output_hash(dep: str, made: Mapping[str, str]) -> str | None:
    """Return the md5 of the output that a dep is or lies in; None when no stage has made it."""
    return next((md5 for out, md5 in made.items() if Path(dep).is_relative_to(out)), None)


def _file_hashes(path: Path) -> dict[str, str]:
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return {
        file.relative_to(path).as_posix(): sha256_of(file)
        for file in files
        if file.is_file() and "__pycache__" not in file.parts
    }


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


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
