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

from diptych.errors import UserError
from diptych.files import sha256_of
from diptych.machine import cpu_model, num_cores, user_name
from diptych.params import ParamsError, check_section, read_yaml
from diptych.tracking.tags import CODE_DIFF_TAG, COMMIT_TAG, DIRTY_TAG, USER_TAG

SECONDS_TAG = "diptych.seconds"
PEAK_MEMORY_TAG = "diptych.peak_memory_mib"
PEAK_GPU_MEMORY_TAG = "diptych.peak_gpu_memory_mib"

_DEVICE_TAG, _PRECISION_TAG = "diptych.device", "diptych.precision"
_NUM_THREADS_TAG, _GPU_TAG = "diptych.num_threads", "diptych.gpu"
COMPUTE_TAGS = (_DEVICE_TAG, _PRECISION_TAG, _NUM_THREADS_TAG, _GPU_TAG)
"""Tags that say on what a stage ran."""

_CODE = ("*.py", "dvc.yaml", "pyproject.toml", "requirements.lock")
_DIFF = (
    *("diff", "HEAD", "--binary", "--full-index", "--no-renames", "--no-color"),
    *("--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/"),
)
_UNTRACKED = ("ls-files", "-z", "--others", "--exclude-standard")
_PACKAGES = ("diptych", "dvc", "mlflow", "numpy", "torch")

# As DVC writes dvc.lock. A YAML parser takes longer over that file than all the rest of a start.
_LOCKED_OUTS = re.compile(r"^    outs:\n((?:    - .*\n|      .*\n)+)", re.MULTILINE)
_LOCKED_OUT = re.compile(r"    - path: (.+)\n(?:      .*\n)*?      md5: (\S+)\n")


def source_tags(workspace: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of stage and parent alike: the code, the DVC experiment, the user.

    Args:
        workspace: The folder whose code runs.
        environment: The process's environment variables; DVC sets DVC_EXP_NAME and others.
    """
    named = {
        "dvc.experiment": environment.get("DVC_EXP_NAME"),
        "dvc.baseline": environment.get("DVC_EXP_BASELINE_REV"),
        USER_TAG: user_name(),
        "mlflow.source.type": "LOCAL",
    }
    return {key: value for key, value in named.items() if value} | code_tags(workspace)


def code_tags(workspace: Path) -> dict[str, str]:
    """Return git's commit, whether the code differs from it, and if so a sha256 of how.

    Args:
        workspace: The folder whose code runs; without git it has no such tags.
    """
    # Code alone: DVC rewrites dvc.lock and the metrics while the pipeline runs.
    status = _git(
        *(workspace, "--no-optional-locks", "status", "--porcelain=v2", "--branch", "-z"),
        *("--untracked-files=all", "--no-renames", "--", *_CODE),
    )
    if status is None:
        return {}
    lines = status.decode(errors="replace").split("\0")
    head = {
        key: value for _, key, value in (line.split(" ", 2) for line in lines if line[:2] == "# ")
    }
    commit = head.get("branch.oid", "(initial)")
    is_dirty = any(line and line[:2] != "# " for line in lines)
    tags = {DIRTY_TAG: str(is_dirty).lower()}
    if commit != "(initial)":
        tags[COMMIT_TAG] = commit
    if is_dirty and (difference := _code_difference(workspace)):
        tags[CODE_DIFF_TAG] = difference
    return tags


def dep_hashes(workspace: Path, stage: str) -> dict[str, str] | None:
    """Return a hash of each dep of a stage, by its path in dvc.yaml.

    Args:
        workspace: The folder whose dvc.yaml runs.
        stage: The stage's name in dvc.yaml.

    Returns:
        `md5:` and what dvc.lock holds of the whole output, for what another stage has made;
        `sha256:` and the digest of the bytes, of a folder's files with their names, for all else.
        None when dvc.yaml does not describe the stage or a dep cannot be read.
    """
    with suppress(OSError, ParamsError, KeyError, TypeError):
        made = _locked_outs(workspace / "dvc.lock")
        deps = read_yaml(workspace / "dvc.yaml")["stages"][stage]["deps"]
        return {dep: _output_hash(dep, made) or _bytes_hash(workspace / dep) for dep in deps}
    return None


def stage_fingerprint(workspace: Path, stage: str, params: Mapping[str, object]) -> str | None:
    """Return a sha256 over all that decides a stage's outputs: parameters, data and code.

    Args:
        workspace: The folder whose dvc.yaml runs.
        stage: The stage's name in dvc.yaml.
        params: The parameters that it depends on, under dotted keys.

    Returns:
        The fingerprint, in hexadecimal; None when `dep_hashes` has none.
    """
    deps = dep_hashes(workspace, stage)
    return None if deps is None else fingerprint_of(stage, params, deps)


def fingerprint_of(stage: str, params: Mapping[str, object], deps: Mapping[str, str]) -> str:
    """Return the fingerprint of a stage whose deps have been hashed, as `stage_fingerprint`."""
    return sha256_of_values({"stage": stage, "params": params, "deps": deps})


def sha256_of_values(values: Mapping[str, object]) -> str:
    """Return the sha256, in hexadecimal, of values as JSON with sorted keys."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


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


def compute_tags(params: Mapping[str, object]) -> dict[str, str]:
    """Return the device and precision that a stage's section `compute` stands for.

    Args:
        params: The stage's, under dotted keys; without the section there is nothing to tell.
    """
    section = {
        key.removeprefix("compute."): value
        for key, value in params.items()
        if key.startswith("compute.")
    }
    if not section:
        return {}
    from diptych.optimization.compute import ComputeParams, set_up_compute

    with suppress(UserError):
        # The stage has done the same before: nothing changes.
        compute = set_up_compute(
            check_section("params", {"compute": section}, "compute", ComputeParams)
        )
        precision = str(compute.dtype).removeprefix("torch.")
        return {_DEVICE_TAG: compute.device.type, _PRECISION_TAG: precision}
    return {}


def cost_tags(seconds: float) -> dict[str, str]:
    """Return what is known at the end: time, memory, and what torch was set to, if it was used."""
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kib = kib // 1024 if sys.platform == "darwin" else kib
    tags = {SECONDS_TAG: f"{seconds:.2f}", PEAK_MEMORY_TAG: str(kib // 1024)}
    torch = sys.modules.get("torch")
    if torch is not None:
        tags[_NUM_THREADS_TAG] = str(torch.get_num_threads())
        if torch.cuda.is_initialized():
            tags[_GPU_TAG] = torch.cuda.get_device_name()
            tags[PEAK_GPU_MEMORY_TAG] = str(torch.cuda.max_memory_allocated() // 1024**2)
    return tags


def _locked_outs(lock: Path) -> dict[str, str]:
    """Return the md5 of every output in dvc.lock; while a stage runs, of those it depends on."""
    if not lock.is_file():
        return {}
    blocks = _LOCKED_OUTS.findall(lock.read_text(encoding="utf-8"))
    return {path: md5 for block in blocks for path, md5 in _LOCKED_OUT.findall(block)}


def _output_hash(dep: str, made: Mapping[str, str]) -> str | None:
    """Return the md5 of the output that a dep is or lies in; None when no stage has made it."""
    return next((f"md5:{md5}" for out, md5 in made.items() if Path(dep).is_relative_to(out)), None)


def _bytes_hash(path: Path) -> str:
    if path.is_file():
        return f"sha256:{sha256_of(path)}"
    files = {
        file.relative_to(path).as_posix(): sha256_of(file)
        for file in path.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    return f"sha256:{sha256_of_values(files)}"


def _code_difference(workspace: Path) -> str | None:
    """Return the sha256 of what the code has beyond the commit; None when git cannot tell."""
    changes = _git(workspace, *_DIFF, "--", *_CODE)
    untracked = _git(workspace, *_UNTRACKED, "--", *_CODE)
    if changes is None or untracked is None:
        return None
    digest = hashlib.sha256(changes)
    with suppress(OSError):
        for name in filter(None, untracked.decode(errors="surrogateescape").split("\0")):
            digest.update(
                f"{name}\0{sha256_of(workspace / name)}\n".encode(errors="surrogateescape")
            )
        return digest.hexdigest()
    return None


def _git(folder: Path, *arguments: str) -> bytes | None:
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, timeout=10, check=True
        )
        return done.stdout
    return None


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
