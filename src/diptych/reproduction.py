"""`dvc repro`, one at a time, after what a kill or a merge has left of DVC's files is mended."""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, NoReturn

import psutil

from diptych.errors import UserError
from diptych.files import write_json
from diptych.locks import try_lock
from diptych.tracking.pipeline import LOCK_FILE

_LOCK = Path(".diptych", "repro.lock")
_DAMAGED_LOCK_FILE = Path(".diptych", "dvc.lock.damaged")
_STATE_FOLDER = Path(".dvc", "tmp")
_POLLING_SECONDS = 0.2

Say = Callable[[str], None]


class ReproductionError(UserError):
    """The pipeline cannot be run here."""


def reproduce(arguments: Sequence[str], say: Say) -> NoReturn:
    """Become `dvc repro` in the working directory, once nobody else runs the pipeline there.

    Args:
        arguments: For `dvc repro`.
        say: Gets a line when something is mended or waited for.

    Raises:
        ReproductionError: when the directory is no DVC project's.
    """
    if not Path(".dvc").is_dir():
        raise ReproductionError(".dvc: must be here; run this in the project's main folder")
    _LOCK.parent.mkdir(parents=True, exist_ok=True)
    lock = _LOCK.open("a+")
    _wait_for(lock, say)
    mend_dvc_files(say)
    os.set_inheritable(lock.fileno(), True)  # DVC's own children do not get it
    command = [sys.executable, "-P", "-m", "dvc", "--wait-for-lock", "repro", *arguments]
    os.execv(sys.executable, command)  # noqa: S606  # a shell would be the process to end


@dataclass(frozen=True, slots=True)
class Fault:
    """What a kill or a merge has left of one of DVC's files.

    Attributes:
        path: The file.
        what: What is wrong with it.
        remedy: What `mend` makes of it.
        mend: Mends it; while no DVC process writes the file.
    """

    path: Path
    what: str
    remedy: str
    mend: Callable[[], None]


def find_dvc_faults(root: Path) -> list[Fault]:
    """Look at DVC's list of busy paths and dvc.lock in a project's main folder; change nothing."""
    faults = (
        _fault_of_busy_paths(root / _STATE_FOLDER / "rwlock"),
        fault_of_lock_file(root),
    )
    return [fault for fault in faults if fault is not None]


def mend_dvc_files(say: Say) -> None:
    """Mend DVC's list of busy paths and dvc.lock in the working directory, if they need it.

    Of both no other DVC process writes anything meanwhile.

    Args:
        say: Gets a line for each that is mended.
    """
    from dvc.lock import make_lock

    _STATE_FOLDER.mkdir(parents=True, exist_ok=True)
    of_project, of_busy = (str(_STATE_FOLDER / name) for name in ("lock", "rwlock.lock"))
    with make_lock(of_project, wait=True), make_lock(of_busy, wait=True):
        for fault in find_dvc_faults(Path()):
            fault.mend()
            say(f"{fault.path}: {fault.what}; {fault.remedy}")


def _wait_for(lock: IO[str], say: Say) -> None:
    if not try_lock(lock):
        lock.seek(0)
        say(f"waits for process {lock.read() or 'unknown'}, which runs the pipeline")
        while not try_lock(lock):
            time.sleep(_POLLING_SECONDS)
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()


def _fault_of_busy_paths(path: Path) -> Fault | None:
    """Look at DVC's list of who reads and writes what for those who are gone."""
    from dvc.rwlock import SCHEMA
    from voluptuous import Invalid

    try:
        busy = SCHEMA(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, Invalid):
        # Whoever was writing it is gone: it is locked while it is mended.
        return Fault(path, "was damaged by a kill", "it is made anew", path.unlink)
    readers = {name: list(filter(_is_alive, infos)) for name, infos in busy["read"].items()}
    alive = {
        "read": {name: infos for name, infos in readers.items() if infos},
        "write": {name: info for name, info in busy["write"].items() if _is_alive(info)},
    }
    if alive == busy:
        return None
    what = "names processes that are gone"
    return Fault(path, what, "they are taken out", partial(write_json, path, alive))


def _is_alive(info: Mapping[str, Any]) -> bool:
    """Tell whether an entry's process runs, and is not another one under the same number."""
    try:
        words = psutil.Process(info["pid"]).cmdline()
    except psutil.Error:
        return False
    return " ".join(words).endswith(info["cmd"].partition(" ")[2])


def fault_of_lock_file(root: Path) -> Fault | None:
    """Look at a project's dvc.lock: finished stages that it lost are still in DVC's run cache."""
    from dvc.exceptions import DvcException
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils import strictyaml

    path, aside = root / LOCK_FILE, root / _DAMAGED_LOCK_FILE
    if not path.exists():
        return None
    try:
        strictyaml.load(str(path), COMPILED_LOCKFILE_SCHEMA)
        is_whole = path.read_bytes().endswith(b"\n")  # as DVC writes it: half a hash is valid YAML
    except (DvcException, ValueError):
        is_whole = False
    if is_whole:
        return None
    what = "is cut or has conflict markers"
    return Fault(path, what, f"it is {aside} now and made anew", lambda: _put(path, aside))


def _put(path: Path, aside: Path) -> None:
    aside.parent.mkdir(parents=True, exist_ok=True)
    path.replace(aside)
