"""The recorder's process: one per pipeline execution, beside the stages and apart from them.

A stage would otherwise import mlflow itself, which takes longer than many a stage. The process is
not the stage's child, gives way to it, and ends after the execution or the stage that it is for.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

import psutil

from diptych.execution import is_running, process_key
from diptych.locks import is_locked, try_lock
from diptych.tracking.completion import Execution, tell_skipped_stages
from diptych.tracking.journal import is_being_written
from diptych.tracking.pipeline import PARAMS_FILE
from diptych.tracking.recorder import MlflowRecorder, prepare_mlflow
from diptych.tracking.recording import (
    failure_of,
    journals_in,
    note_failure,
    open_journals,
    record_journals,
    take_refusals,
)
from diptych.tracking.snapshot import Snapshot
from diptych.tracking.store import Store, find_store, find_workspace

LOCK_FILE = "lock"
"""Is locked by whoever records the journals of a folder."""
SNAPSHOT_FOLDER = "snapshot"
"""Holds what `diptych.tracking.completion` needs of an execution."""

_READY_FILE = "ready"
_NICENESS = 10
# Once nothing more will come: enough to import mlflow on a busy machine, and then to record.
_FINISHING_SECONDS = 300.0
# Between the last stage and the deletion of an experiment's folder lie some tenths of a second.
_POLLING_SECONDS = 0.05


def start_recorder(folder: Path, store: Store, root: Path, pipeline: psutil.Process | None) -> None:
    """See to it that a process records the journals of a folder; does not wait for it.

    Args:
        folder: Holds the journals.
        store: Where to record.
        root: The project's main folder.
        pipeline: The process recorded for: the recorder lives as long as it, and as the writers of
            journals that are there already. None when only these count.

    Raises:
        OSError: when the process cannot be started.
    """
    with (folder / LOCK_FILE).open("ab") as lock:
        if not try_lock(lock):
            return  # the recorder that an earlier stage started
        (folder / _READY_FILE).unlink(missing_ok=True)
        command = [sys.executable, "-P", "-m", __name__, str(root), str(folder)]
        if pipeline is not None:
            # DVC starts a stage in the folder of its dvc.yaml.
            workspace = find_workspace(Path(PARAMS_FILE), os.environ)
            command += [str(pipeline.pid), process_key(pipeline), str(workspace)]
        # The shell leaves the process to init. A group of its own keeps Ctrl-C from it; in a
        # session of its own Linux would not let it give way ("autogroup"). It inherits the lock.
        subprocess.run(
            ["/bin/sh", "-c", '"$@" &', "sh", *command],
            check=False,  # the shell itself cannot fail, and nothing here may stop a stage
            cwd=root,
            env=_environment(store),
            pass_fds=[lock.fileno()],
            process_group=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def is_recorder_alive(folder: Path) -> bool:
    """Tell whether a process records the journals of a folder."""
    return is_locked(folder / LOCK_FILE)


def is_recorder_ready(folder: Path) -> bool:
    """Tell whether the recorder of a folder has imported and opened all that it needs."""
    return (folder / _READY_FILE).exists()


def await_recorders(folders: Path, timeout_seconds: float) -> None:
    """Wait until what has been told by executions that are over is recorded, but not for ever.

    Args:
        folders: Holds the folders of journals.
        timeout_seconds: The longest wait.
    """
    deadline = time.monotonic() + timeout_seconds
    while any(map(_is_finishing, folders.glob("*"))) and time.monotonic() < deadline:
        time.sleep(_POLLING_SECONDS)


def _is_finishing(folder: Path) -> bool:
    return is_recorder_alive(folder) and not any(map(is_being_written, journals_in(folder)))


def record_folder(
    folder: Path,
    store: Store,
    is_over: Callable[[], bool],
    complete: Callable[[str], None] | None = None,
) -> None:
    """Record a folder's journals until no more will come; each learns of what fails before.

    Args:
        folder: Holds the journals.
        store: Where to record.
        is_over: Tells whether no journal will come or grow any more.
        complete: Called then, if nothing has failed, with the id of the run above the journals' if
            there is one; the journals that it writes are recorded too.
    """
    recorders: list[MlflowRecorder] = []

    def new_recorder(journal: str) -> MlflowRecorder:
        recorders.append(MlflowRecorder(store, journal))
        return recorders[-1]

    try:
        prepare_mlflow(store)
        (folder / _READY_FILE).touch()
        record_journals(folder, new_recorder, is_over)
        parent_run_id = next(filter(None, (one.parent_run_id for one in recorders)), None)
        if complete is not None and parent_run_id is not None and not journals_in(folder):
            complete(parent_run_id)
            record_journals(folder, new_recorder, is_over)
    except Exception as error:
        for journal in open_journals(folder):
            note_failure(journal, error)


def main(arguments: list[str]) -> NoReturn:
    """Record the journals of a folder until no more will come, in no case for ever.

    Args:
        arguments: The project's main folder, the journals' folder and, of the process recorded for
            if there is one, number, key and the folder in which its stages run.
    """
    os.nice(_NICENESS)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    root, folder = map(Path, arguments[:2])
    is_over = _end_of(folder, *arguments[2:4])
    store = find_store(root, os.environ)
    snapshot = complete = None
    if len(arguments) > 4:
        snapshot = Snapshot(Path(arguments[4]), folder / SNAPSHOT_FOLDER)
        complete = partial(_complete, root, folder, store, snapshot)
    recording = threading.Thread(
        target=record_folder, args=(folder, store, is_over, complete), daemon=True
    )
    recording.start()
    over_since = None
    while recording.is_alive():
        recording.join(_POLLING_SECONDS)
        if is_over():
            over_since = over_since or time.monotonic()
            if time.monotonic() - over_since > _FINISHING_SECONDS:
                break
        elif snapshot is not None:
            snapshot.refresh()
    tidy_up(folder)
    os._exit(0)  # what mlflow does at exit may take long


def _complete(
    root: Path, folder: Path, store: Store, snapshot: Snapshot, parent_run_id: str
) -> None:
    """Write the journals of the stages that did not run; a failure is noted beside the snapshot."""
    snapshot.finish(root, os.environ)
    execution = Execution(parent_run_id, store, folder, snapshot.copy, snapshot.workspace, root)
    try:
        tell_skipped_stages(execution)
    except Exception as error:
        note_failure(snapshot.copy, error)


def _end_of(folder: Path, pid: str = "", key: str = "") -> Callable[[], bool]:
    """Return what tells that no journal of a folder will come or grow any more."""
    pipeline = None
    with suppress(psutil.Error):
        process = psutil.Process(int(pid)) if pid else None
        if process is not None and process_key(process) == key:
            pipeline = process

    def is_over() -> bool:
        if pipeline is not None and is_running(pipeline):
            return False
        return not any(map(is_being_written, journals_in(folder)))

    return is_over


def tidy_up(folder: Path) -> None:
    """Remove a folder in which nothing is left to record."""
    with suppress(OSError):
        if not journals_in(folder) and failure_of(folder / SNAPSHOT_FOLDER) is None:
            shutil.rmtree(folder / SNAPSHOT_FOLDER, ignore_errors=True)
        for name in (_READY_FILE, LOCK_FILE):
            (folder / name).unlink(missing_ok=True)
        take_refusals(folder)  # their runs say so too
        folder.rmdir()


def _environment(store: Store) -> dict[str, str]:
    package_root = str(Path(__file__).parents[2])
    search_path = [package_root, os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, search_path)),
        # Not on the command line: an address may hold credentials.
        "MLFLOW_TRACKING_URI": store.uri,
        "MLFLOW_EXPERIMENT_NAME": store.experiment,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
