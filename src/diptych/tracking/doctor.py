"""What is wrong with a project's store, runs, DVC and environment, and what mends it.

Only looks: nothing is changed here.
"""

import importlib.metadata
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from diptych.errors import UserError
from diptych.locks import is_locked
from diptych.machine import num_cores
from diptych.params import load_params, read_yaml
from diptych.promotion.params import PromotionParams
from diptych.promotion.record import Family
from diptych.reproduction import fault_of_lock_file, find_dvc_faults
from diptych.tracking.audit import standing_of
from diptych.tracking.client import connect
from diptych.tracking.dvc_cache import DvcCache
from diptych.tracking.pipeline import LOCK_FILE, PARAMS_FILE, PIPELINE_FILE, read_stages
from diptych.tracking.reap import find_stale_runs
from diptych.tracking.recording import reason_of
from diptych.tracking.registry import Registry, model_name
from diptych.tracking.secrets import redacted
from diptych.tracking.store import Store, find_store
from diptych.tracking.sync import unrecorded_journals

_REQUIREMENTS_FILE = "requirements.lock"
_THREADS_VARIABLE = "OMP_NUM_THREADS"
# A store and a cache with a few runs of the pipeline.
_MIN_FREE_BYTES = 2**30
_MIN_PYTHON = (3, 11)
_WRITING_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        subject: Where: store, runs, dvc, training, registry or environment.
        what: What is wrong, on one line.
        command: The command that mends it; empty where a person has to see to what is named.
    """

    subject: str
    what: str
    command: str


@dataclass(frozen=True, slots=True)
class Patient:
    """A project to look at.

    Attributes:
        root: Its main folder.
        environment: The process's environment variables.
    """

    root: Path
    environment: Mapping[str, str]

    @property
    def store(self) -> Store:
        """Where its runs are recorded."""
        return find_store(self.root, self.environment)


def examine(patient: Patient) -> list[Finding]:
    """Look at everything; what keeps one look from being taken does not keep the others."""
    found: list[Finding] = []
    for subject, look in _LOOKS:
        try:
            found += [Finding(subject, what, command) for what, command in look(patient)]
        except UserError as error:
            found.append(Finding(subject, str(error), ""))
        except Exception as error:
            found.append(Finding(subject, f"cannot be told ({reason_of(error)})", ""))
    return found


Look = Callable[[Patient], Iterator[tuple[str, str]]]
"""Yields what is wrong, and the command that mends it."""


def _store(patient: Patient) -> Iterator[tuple[str, str]]:
    store = patient.store
    if store.database is None:
        yield from _unanswered(store)
    elif store.database.exists():
        yield from _database(store)
        artifacts = store.artifact_folder
        if artifacts is not None and artifacts.exists() and not os.access(artifacts, os.W_OK):
            yield f"{artifacts}: must be writable", f"chmod u+rwx {artifacts}"
    for experiment in _experiments(store):
        location = str(experiment.artifact_location)
        if location != store.artifact_location and experiment.name == store.experiment:
            what = f"experiment {experiment.name}: artifacts must go to {store.artifact_location}"
            yield (
                f"{what} (got {redacted(location)})",
                f"MLFLOW_EXPERIMENT_NAME={experiment.name}-2 diptych repro",
            )


def _unanswered(store: Store) -> Iterator[tuple[str, str]]:
    try:
        connect(store)
    except UserError as error:
        yield str(error), f"curl --fail {redacted(store.uri)}/health"


def _database(store: Store) -> Iterator[tuple[str, str]]:
    """Look at a SQLite file without MLflow, which would try to mend what it finds."""
    import sqlalchemy
    from mlflow.store.db.utils import _get_latest_schema_revision, _get_schema_version

    engine = sqlalchemy.create_engine(store.uri)
    try:
        with engine.connect() as connection:
            verdict = connection.execute(sqlalchemy.text("pragma quick_check(1)")).scalar_one()
        if verdict != "ok":
            yield f"{store.database}: is damaged ({verdict})", f"mv {store.database} damaged.db"
            return
        found = _get_schema_version(engine)  # type: ignore[no-untyped-call]
        wanted = _get_latest_schema_revision()  # type: ignore[no-untyped-call]
        if found != wanted:
            what = f"{store.database}: schema must be {wanted} (got {found})"
            yield what, f"mlflow db upgrade {redacted(store.uri)}"
    except sqlalchemy.exc.DatabaseError as error:
        what = f"{store.database}: is no database of MLflow ({reason_of(error)})"
        yield what, f"mv {store.database} damaged.db"
    finally:
        engine.dispose()


def _experiments(store: Store) -> list[Any]:
    """Return the experiments of a local store that can be opened."""
    if store.database is None or not store.database.exists() or list(_database(store)):
        return []
    return list(connect(store).search_experiments())


def _journals(patient: Patient) -> Iterator[tuple[str, str]]:
    if journals := unrecorded_journals(patient.root):
        yield f"{len(journals)} told but not recorded", "diptych sync"


def _stale_runs(patient: Patient) -> Iterator[tuple[str, str]]:
    if not _is_open(patient.store):
        return
    if stale := find_stale_runs(connect(patient.store), patient.root):
        names = ", ".join(run.name for run in stale[:3]) + (", …" if len(stale) > 3 else "")
        yield f"{len(stale)} RUNNING without a process ({names})", "diptych reap"


def _registry(patient: Patient) -> Iterator[tuple[str, str]]:
    params = patient.root / PARAMS_FILE
    if not _is_open(patient.store) or not params.is_file():
        return
    prefix = load_params(params, "promotion", PromotionParams).prefix
    client = connect(patient.store)
    for family in get_args(Family):
        name = model_name(prefix, family)
        state = Registry(client, name).read()
        if state.interrupted is not None:
            yield f"{name}: {state.interrupted.action} was interrupted", "diptych status"
        elif standing_of(state.log) != state.standing:
            yield f"{name}: its aliases are not those of its log", "diptych status"


def _is_open(store: Store) -> bool:
    """Tell whether a store is there and answers; if not, `_store` has said so."""
    try:
        connect(store)
    except UserError:
        return False
    return True


def _dvc_files(patient: Patient) -> Iterator[tuple[str, str]]:
    if find_dvc_faults(patient.root):
        # DVC writes both files in place: what a running one has half written is no fault.
        time.sleep(_WRITING_SECONDS)
        for fault in find_dvc_faults(patient.root):
            yield f"{fault.path}: {fault.what}", "diptych repro"


def _dvc_cache(patient: Patient) -> Iterator[tuple[str, str]]:
    if not (patient.root / LOCK_FILE).exists() or fault_of_lock_file(patient.root):
        return
    cache = DvcCache(patient.root)
    locked = read_yaml(patient.root / LOCK_FILE).get("stages", {})
    for stage in read_stages(patient.root / PIPELINE_FILE):
        outs = {out["path"]: out["md5"] for out in locked.get(stage.name, {}).get("outs", ())}
        missing = [
            path
            for path, md5 in outs.items()
            if stage.outs.get(path)
            and not all(cache.object_path(one).is_file() for one, _ in cache.objects(md5))
        ]
        if missing:
            what = f"stage {stage.name}: {', '.join(missing)} not wholly in the cache"
            yield what, f"diptych repro {stage.name}"


def _trainings(patient: Patient) -> Iterator[tuple[str, str]]:
    from diptych.resuming import CHECKPOINTS_FOLDER  # takes seconds

    folder = patient.root / CHECKPOINTS_FOLDER
    outputs = {path.parent.parent for path in folder.rglob("*.safetensors")}
    for output in sorted(outputs):
        if not is_locked(output.with_name(f"{output.name}.lock")):
            what = f"{output.relative_to(folder)}: was interrupted and will go on"
            yield what, "diptych repro"


def _versions(patient: Patient) -> Iterator[tuple[str, str]]:
    from packaging.requirements import InvalidRequirement, Requirement

    path = patient.root / _REQUIREMENTS_FILE
    if sys.version_info < _MIN_PYTHON:
        yield f"Python must be >= 3.11 (got {sys.version.split()[0]})", "make clean setup"
    if not path.is_file():
        return
    wrong = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if "==" not in line or line.startswith((" ", "#")):
            continue
        try:
            pinned = Requirement(line.rstrip("\\ "))
        except InvalidRequirement:
            yield f"{path}: {line:.80}: must be a pinned version", f"git checkout -- {path.name}"
            return
        found = _installed(pinned.name)
        is_meant = pinned.marker is None or pinned.marker.evaluate()
        if is_meant and not pinned.specifier.contains(found or "0", prereleases=True):
            wrong.append(f"{pinned.name}{pinned.specifier} (got {found or 'none'})")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        yield f"must be as in {path.name}: {', '.join(wrong[:3])}{more}", "make setup"


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _machine(patient: Patient) -> Iterator[tuple[str, str]]:
    if shutil.which("git") is None:
        yield "git must be installed: runs are not tagged with a commit", "sudo apt install git"
    elif not any((one / ".git").exists() for one in (patient.root, *patient.root.parents)):
        yield f"{patient.root}: must be in a git repository", "git init"
    free = shutil.disk_usage(patient.root).free
    if free < _MIN_FREE_BYTES:
        yield f"{free // 2**20} MiB free on the disk (1024 at least)", "dvc gc --workspace"
    threads = patient.environment.get(_THREADS_VARIABLE, "")
    if threads.isdecimal() and int(threads) > num_cores():
        what = f"{_THREADS_VARIABLE} must be at most {num_cores()} here (got {threads})"
        yield what, f"export {_THREADS_VARIABLE}={num_cores()}"


_LOOKS: tuple[tuple[str, Look], ...] = (
    ("environment", _versions),
    ("environment", _machine),
    ("store", _store),
    ("runs", _journals),
    ("runs", _stale_runs),
    ("registry", _registry),
    ("dvc", _dvc_files),
    ("dvc", _dvc_cache),
    ("training", _trainings),
)
