"""The pipeline as dvc.yaml describes it, and which of its stages are up to date by dvc.lock."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from diptych.params import ParamsError, dotted, read_yaml
from diptych.tracking.dvc_cache import DvcCache, dvc_md5
from diptych.tracking.provenance import dep_hashes, fingerprint_of

PIPELINE_FILE = "dvc.yaml"
LOCK_FILE = "dvc.lock"
PARAMS_FILE = "params.yaml"

_OUTPUT_KEYS = ("outs", "metrics", "plots")


@dataclass(frozen=True, slots=True)
class StageDescription:
    """A stage as dvc.yaml describes it; all paths are relative to that file.

    Attributes:
        name: The stage's.
        command: What runs it.
        deps: Paths.
        params: Keys of the parameter file: sections, or dotted.
        outs: Paths, each with whether DVC's cache keeps it; what it does not keep is git's.
    """

    name: str
    command: str
    deps: tuple[str, ...]
    params: tuple[str, ...]
    outs: Mapping[str, bool]

    @property
    def options(self) -> dict[str, str]:
        """Outputs by the names of the command's options."""
        words = shlex.split(self.command)
        return {
            name.removeprefix("--"): path
            for name, path in pairwise(words)
            if name.startswith("--") and path in self.outs
        }


@dataclass(frozen=True, slots=True)
class FinishedStage:
    """A stage that is up to date: its outputs belong to the present params, data and code.

    Attributes:
        description: The stage.
        params: What it depends on, under dotted keys.
        dep_hashes: A hash of each dep, as `diptych.tracking.provenance` makes them.
        dep_md5s: DVC's hash of each dep, by its path.
        out_md5s: DVC's hash of each output, by its path.
    """

    description: StageDescription
    params: Mapping[str, object]
    dep_hashes: Mapping[str, str]
    dep_md5s: Mapping[str, str]
    out_md5s: Mapping[str, str]

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.description.name

    @property
    def fingerprint(self) -> str:
        """What a run of the stage is found by."""
        return fingerprint_of(self.name, self.params, self.dep_hashes)


def read_stages(path: Path) -> list[StageDescription]:
    """Return the stages that a dvc.yaml describes.

    Raises:
        ParamsError: when the file cannot be read, or holds no stages as DVC has them.
    """
    pipeline = read_yaml(path)
    try:
        return _stages_of(pipeline)
    except (AttributeError, LookupError, TypeError, ValueError):
        raise ParamsError(f"{path}: stages: must be as DVC reads them") from None


def _stages_of(pipeline: Mapping[str, Any]) -> list[StageDescription]:
    return [
        StageDescription(
            name,
            content["cmd"],
            tuple(content.get("deps", ())),
            tuple(content.get("params", ())),
            {
                path: cached
                for key in _OUTPUT_KEYS
                for entry in content.get(key, ())
                for path, cached in [_out(entry)]
            },
        )
        for name, content in pipeline.get("stages", {}).items()
    ]


def finished_stages(folder: Path, cache: DvcCache) -> list[FinishedStage]:
    """Return the stages that are up to date, in the order of dvc.yaml.

    Args:
        folder: Holds dvc.yaml, dvc.lock, the parameter file, and the deps that no stage makes.
        cache: Knows the deps that lie within a stage's output.

    Raises:
        ParamsError: when a file cannot be read.
        OSError: when a dep cannot be read.
    """
    if not (folder / LOCK_FILE).is_file():
        return []
    locked = read_yaml(folder / LOCK_FILE).get("stages", {})
    made = {
        out: md5 for stage in locked.values() for out, md5 in _md5s(stage.get("outs", ())).items()
    }
    params = dotted(read_yaml(folder / PARAMS_FILE))
    finished = []
    for stage in read_stages(folder / PIPELINE_FILE):
        lock = locked.get(stage.name, {})
        chosen = chosen_params(params, stage.params)
        hashes = dep_hashes(folder, stage.name)
        present = {dep: _present_md5(folder, dep, made, cache) for dep in stage.deps}
        if hashes is not None and _is_up_to_date(stage, lock, chosen, present):
            md5s = _md5s(lock["deps"]), _md5s(lock["outs"])
            finished.append(FinishedStage(stage, chosen, hashes, *md5s))
    return finished


def chosen_params(params: Mapping[str, object], keys: Sequence[str]) -> dict[str, object]:
    """Return the params, under dotted keys, that lie in the named sections or have these keys."""
    return {
        key: value
        for key, value in params.items()
        if any(key == one or key.startswith(f"{one}.") for one in keys)
    }


def _out(entry: str | Mapping[str, Any]) -> tuple[str, bool]:
    if isinstance(entry, str):
        return entry, True
    ((path, details),) = entry.items()
    return path, details.get("cache", True)


def _md5s(entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {entry["path"]: entry.get("md5", "") for entry in entries}


def _is_up_to_date(
    stage: StageDescription,
    lock: Mapping[str, Any],
    params: Mapping[str, object],
    dep_md5s: Mapping[str, str | None],
) -> bool:
    """Tell whether what dvc.lock says of a stage is what there is now, as DVC decides it."""
    return (
        lock.get("cmd") == stage.command
        and _md5s(lock.get("deps", ())) == dep_md5s
        and dotted(lock.get("params", {}).get(PARAMS_FILE, {})) == params
        and _md5s(lock.get("outs", ())).keys() == stage.outs.keys()
    )


def _present_md5(folder: Path, dep: str, made: Mapping[str, str], cache: DvcCache) -> str | None:
    for out, md5 in made.items():
        if dep == out:
            return md5
        if Path(dep).is_relative_to(out):
            return cache.hash_within(md5, Path(dep).relative_to(out))
    return dvc_md5(folder / dep) if (folder / dep).exists() else None
