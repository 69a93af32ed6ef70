"""The tracker that records in MLflow."""

from collections.abc import Mapping

from diptych.tracking.events import ParentRun, RunEnded, RunStarted, Status
from diptych.tracking.recorder import MlflowRecorder
from diptych.tracking.store import Store
from diptych.tracking.tracker import EventTracker, as_text, now_ms
from diptych.tracking.writer import BackgroundWriter

# Importing mlflow and creating a store take seconds, on a loaded machine many.
_PREPARING_SECONDS = 90.0
_LOCAL_SECONDS = 60.0
_REMOTE_SECONDS = 10.0
_KILLED_SECONDS = 4.0


class MlflowTracker(EventTracker):
    """One run in MLflow, written by a background thread; a failing store never fails the stage."""

    def __init__(
        self, store: Store, name: str, tags: Mapping[str, str], parent: ParentRun | None
    ) -> None:
        """Start the run.

        Args:
            store: Where to record.
            name: The run's name.
            tags: What is known about the run at its start.
            parent: The run to hang under, if there is one.
        """
        self._store = store
        self._writer = BackgroundWriter(MlflowRecorder(store), store.uri)
        super().__init__(self._writer.put)
        self._emit(RunStarted(name, as_text(tags), parent, now_ms()))

    def finish(self, status: Status) -> None:
        """End the run; wait for what is still to be written, but not for ever."""
        self._emit(RunEnded(status, now_ms()))
        if status == "KILLED":
            self._writer.close(0.0, _KILLED_SECONDS)
        else:
            draining = _REMOTE_SECONDS if self._store.is_remote else _LOCAL_SECONDS
            self._writer.close(_PREPARING_SECONDS, draining)
