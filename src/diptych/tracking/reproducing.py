"""What makes a registered model again, and how it differs from its preset, by its commit in git."""

import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from diptych.machine import num_cores
from diptych.model_files import MODEL_FILE
from diptych.params import ParamsError, dotted, read_yaml
from diptych.presets import CUSTOM, DEFAULT, Change
from diptych.tracking.lineage import MACHINE_TAGS, Lineage
from diptych.tracking.pipeline import PARAMS_FILE, PIPELINE_FILE, read_stages
from diptych.tracking.provenance import compute_tags

_MASK = "***"

# Whoever may write to the store may write anything into a tag: an option of git's or DVC's too.
_COMMIT = re.compile("[0-9a-f]{40,64}")
_SHA256 = re.compile("[0-9a-f]{64}")
_STAGE = re.compile(r"\w[\w@.-]*", re.ASCII)

T = TypeVar("T")


def compared_preset(lineage: Lineage) -> str:
    """Return the name of the preset that a model's parameters are compared with."""
    return DEFAULT if lineage.preset in (None, CUSTOM) else str(lineage.preset)


def changed_params(lineage: Lineage, workspace: Path) -> list[Change] | None:
    """Return the parameters in which a model differs from its preset, or else from the default.

    Args:
        lineage: The model's.
        workspace: A checkout of the project; the preset is taken as its commit had it.

    Returns:
        Those with another value, the preset's as the old one; None when git does not have the
        commit's files, or the parameters are not recorded.
    """
    if lineage.params_text is None or not _has_commit(lineage, workspace):
        return None
    expected: dict[str, Any] = {}
    for file in _compared_files(lineage):
        content = _read_at_commit(workspace, lineage, file, read_yaml)
        if content is None:
            return None
        expected |= dotted(content)
    return [
        Change(key, expected.get(key), value)
        for key, value in lineage.params.items()
        if key not in expected or expected[key] != value
    ]


def reproducing_commands(lineage: Lineage, workspace: Path) -> list[str]:
    """Return the commands that make a model again, to be run in a checkout of the project.

    Args:
        lineage: The model's.
        workspace: The checkout.

    Returns:
        None of them when commit or parameters are not recorded, or git does not have the commit.
        The last ones succeed if the model is the same; `caveats` says when there are no such. No
        word that comes from a tag is anything else than a digest or a stage's name.
    """
    if lineage.params_text is None or not _has_commit(lineage, workspace):
        return []
    digests = lineage.description_sha256, lineage.weights_sha256
    folder = shlex.quote(f"../{lineage.model}-{lineage.version}")
    model = shlex.quote(f"{lineage.model}/{lineage.version}")
    return [
        f"git worktree add --detach {folder} {lineage.commit}",
        f"diptych lineage {model} --print-params > {folder}/{PARAMS_FILE}",
        f"cd {folder}",
        "make setup",
        "source .venv/bin/activate",
        f"dvc repro {lineage.stage}" if _STAGE.fullmatch(lineage.stage) else "dvc repro",
        *(
            f"grep {digest} {shlex.quote(f'{out}/{MODEL_FILE}')}"
            for out in _model_folders(lineage, workspace)
            for digest in digests
            if _SHA256.fullmatch(digest)
        ),
    ]


def caveats(lineage: Lineage, workspace: Path) -> list[str]:
    """Return what stands in the way of making a model again or of comparing it, a line each.

    Args:
        lineage: The model's.
        workspace: A checkout of the project.
    """
    params = lineage.params
    found = [*_recording_caveats(lineage), *_commit_caveats(lineage, workspace)]
    masked = [key for key, value in params.items() if _MASK in str(value)]
    if masked:
        found.append(f"credentials in {', '.join(masked)} were not kept: put them back for {_MASK}")
    return found + _compute_caveats(params, lineage.machine)


def _recording_caveats(lineage: Lineage) -> list[str]:
    """Tell what was not recorded, and what no commit holds."""
    found = []
    if lineage.commit is None:
        found.append("no git commit was recorded: there is nothing to check out")
    elif lineage.is_dirty:
        changes = f" (sha256 of the changes: {lineage.code_diff_sha256})"
        found.append(
            "the code had changes that are not in the commit"
            f"{changes if lineage.code_diff_sha256 else ''}: "
            "the commit alone does not reproduce it"
        )
    if lineage.params_fault is not None:
        found.append(f"run {lineage.run_id}: {PARAMS_FILE}: {lineage.params_fault}")
    elif lineage.params_text is None:
        found.append(f"run {lineage.run_id} keeps no {PARAMS_FILE}")
    return found + _digest_caveats(lineage)


def _digest_caveats(lineage: Lineage) -> list[str]:
    """Tell which of the recorded digests are none."""
    digests = {
        "weights": lineage.weights_sha256,
        "description": lineage.description_sha256 or None,
        "data": lineage.dataset_sha256,
    }
    return [
        f"{name}: the recorded sha256 must be 64 hexadecimal digits (got {digest!r})"
        for name, digest in digests.items()
        if digest is not None and not _SHA256.fullmatch(digest)
    ]


def _commit_caveats(lineage: Lineage, workspace: Path) -> list[str]:
    """Tell what git does not have here of a commit that was recorded."""
    if lineage.commit is None:
        return []
    if not _has_commit(lineage, workspace):
        return [
            f"git here does not have commit {lineage.commit}: fetch it to see in which parameters "
            "the model differs from its preset, and the commands that make it again"
        ]
    found = []
    if lineage.params_text is not None and changed_params(lineage, workspace) is None:
        files = ", ".join(_compared_files(lineage))
        found.append(
            f"the commit does not have all of {files}: which parameters differ is not known"
        )
    if not _model_folders(lineage, workspace):
        found.append(
            f"{PIPELINE_FILE} of the commit has no stage {lineage.stage or 'that is known'} with "
            f"an output {lineage.family}: nothing checks that the model is the same"
        )
    return found


def _compared_files(lineage: Lineage) -> tuple[str, ...]:
    """Return the files that hold what parameters are compared with, later ones over earlier."""
    presets = dict.fromkeys((DEFAULT, compared_preset(lineage)))
    return PARAMS_FILE, *(f"presets/{name}.yaml" for name in presets)


def _model_folders(lineage: Lineage, workspace: Path) -> list[str]:
    """Return where the commit's pipeline writes the model; nothing if it does not say."""
    stages = _read_at_commit(workspace, lineage, PIPELINE_FILE, read_stages) or []
    return [
        out
        for stage in stages
        if stage.name == lineage.stage
        for out in stage.outs
        if PurePosixPath(out).name == lineage.family
    ]


def _compute_caveats(params: Mapping[str, Any], machine: Mapping[str, str]) -> list[str]:
    """Tell where `auto` stood for something else than it does here."""
    names = {"device": "device", "precision": "precision", "num_threads": "threads"}
    there = {
        key: machine[name]
        for key, name in names.items()
        if params.get(f"compute.{key}") == "auto" and name in machine
    }
    here = {"num_threads": str(num_cores())}
    if there.keys() - here.keys():  # torch knows, and takes seconds to import
        tags = compute_tags({**params, "compute.num_threads": "auto"})  # whatever there is
        here |= {key: tags[MACHINE_TAGS[key]] for key in there if MACHINE_TAGS.get(key) in tags}
    return [
        f"compute.{key}: auto stood for {value} there and is {here[key]} here: "
        "the last bits will differ"
        for key, value in there.items()
        if here.get(key, value) != value
    ]


def _has_commit(lineage: Lineage, workspace: Path) -> bool:
    is_commit = _COMMIT.fullmatch(lineage.commit or "") is not None
    return (
        is_commit and _git(workspace, "cat-file", "-e", f"{lineage.commit}^{{commit}}") is not None
    )


def _read_at_commit(
    workspace: Path, lineage: Lineage, file: str, read: Callable[[Path], T]
) -> T | None:
    """Return what is read from a file of the commit, which git has; None if that is not there."""
    content = _git(workspace, "show", f"{lineage.commit}:./{file}")
    if content is None:
        return None
    with tempfile.TemporaryDirectory(prefix="diptych-") as folder, suppress(ParamsError):
        path = Path(folder, PurePosixPath(file).name)
        path.write_bytes(content)
        return read(path)
    return None


def _git(workspace: Path, *arguments: str) -> bytes | None:
    """Return what git prints; None when there is no git, or it fails."""
    with suppress(OSError, ValueError, subprocess.SubprocessError):  # an argument may hold a NUL
        command = ["git", "-C", str(workspace), *arguments]
        return subprocess.run(command, capture_output=True, check=True, timeout=10).stdout
    return None
