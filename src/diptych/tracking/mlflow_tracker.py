"""The tracker that records in MLflow."""

import hashlib
import secrets
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import psutil

from diptych.execution import process_key
from diptych.tracking.events import ParentRun, RunEnded, RunStarted, Status
from diptych.tracking.process import start_recorder
from diptych.tracking.store import Store
from diptych.tracking.tracker import EventTracker, as_text, now_ms
from diptych.tracking.writer import JournalWriter

JOURNALS_FOLDER = Path(".diptych", "tracking")

# Importing mlflow and creating a store take seconds, on a loaded machine many. Only what a server
# may refuse is worth waiting for that long.
_PREPARING_SECONDS = 90.0
_LOCAL_SECONDS = 60.0
_REMOTE_SECONDS = 10.0


class MlflowTracker(EventTracker):
    """One run in MLflow, by way of a journal and the recorder of the pipeline's execution.

    A failing store never fails the stage.
    """

    def __init__(
        self,
        store: Store,
        root: Path,
        name: str,
        tags: Mapping[str, str],
        parent: ParentRun | None,
        pipeline: psutil.Process | None,
    ) -> None:
        """Start the run.

        Args:
            store: Where to record.
            root: The project's main folder, where the journals are.
            name: The run's name.
            tags: What is known about the run at its start.
            parent: The run to hang under, if there is one.
            pipeline: The process that starts the stages of this execution and shares one recorder
                among them; None for a stage that stands alone.
        """
        self._store = store
        journal = f"{now_ms()}-{secrets.token_hex(6)}"
        folder = root / JOURNALS_FOLDER / _recorder_name(store, pipeline, journal)
        start = partial(start_recorder, folder, store, root, pipeline)
        about = {"experiment": store.experiment}
        self._writer = JournalWriter(folder / journal, store.uri, start, about)
        super().__init__(self._writer.put)
        self._emit(RunStarted(name, as_text(tags), parent, now_ms()))

    def finish(self, status: Status) -> None:
        """End the run; wait for what is still to be recorded, but not for ever.

        A local store is not waited for while its recorder is still starting: the journal is whole,
        and what it takes to record it is only time. Whoever stops a stage waits for it to end: then
        nothing is waited for at all.
        """
        self._emit(RunEnded(status, now_ms()))
        if status == "KILLED":
            self._writer.leave()
        elif self._store.is_remote:
            self._writer.close(_PREPARING_SECONDS, _REMOTE_SECONDS)
        else:
            self._writer.close(0.0, _LOCAL_SECONDS)


def _recorder_name(store: Store, pipeline: psutil.Process | None, journal: str) -> str:
    """Return what the stages share that one recorder can serve."""
    if pipeline is None:
        return journal
    address = hashlib.sha256(f"{store.uri}\n{store.experiment}".encode()).hexdigest()
    return f"{process_key(pipeline)}-{address[:8]}"
