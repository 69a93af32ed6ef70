"""Between a stage and its run's journal: nothing that happens there may stop the stage."""

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from diptych.tracking.events import INCOMPLETE_TAG, Event, RunStarted, TagsSet
from diptych.tracking.journal import Journal
from diptych.tracking.process import is_recorder_alive, is_recorder_ready
from diptych.tracking.recording import (
    failure_of,
    is_recorded,
    note_told,
    reason_of,
    take_refusal,
    take_refusals,
    untold_failures,
)
from diptych.tracking.secrets import redacted

_POLLING_SECONDS = 0.01


class JournalWriter:
    """Writes a run's events into its journal, which a recorder reads.

    An event that cannot be written, or that the store refuses, is lost, and that alone: the run
    says so. The first loss, and the first failure of the recorder, which leaves the journal as it
    is, are told in one line each on stderr.
    """

    def __init__(
        self,
        journal: Path,
        store: str,
        start_recorder: Callable[[], None],
        about: Mapping[str, str] | None = None,
    ) -> None:
        """Start a journal and see to its recorder.

        Args:
            journal: The journal's folder, in the recorder's.
            store: The store's address; shown and written down without its secrets.
            start_recorder: Called once the journal is there; may raise OSError.
            about: What else the journal's first line says, for a later synchronisation.
        """
        self._path = journal
        self._store = redacted(store)
        self._journal: Journal | None = None
        self._is_told = False
        self._has_lost = False
        self._owed: list[Event] = []
        self._tell_earlier_failures()
        try:
            self._journal = Journal(journal, {"store": self._store, **(about or {})})
            start_recorder()
        except OSError as error:
            self._tell(reason_of(error))

    def put(self, event: Event) -> None:
        """Write one event; what can go wrong is told, not raised."""
        if self._journal is None:
            return
        try:
            while self._owed:
                self._journal.append(self._owed[0])
                del self._owed[0]
            self._journal.append(event)
        except (OSError, ValueError) as error:  # a full disk; text that is no Unicode
            self._lose(event, reason_of(error))
        self._tell_failure()

    def leave(self) -> None:
        """Leave what is not recorded yet to the recorder, which lives on; wait for nothing."""
        if self._journal is not None:
            self._journal.close()
            self._tell_failure()

    def close(self, preparing_seconds: float, draining_seconds: float) -> None:
        """Wait until everything is recorded, but not for ever; the journal outlives the wait.

        Args:
            preparing_seconds: The longest wait for the recorder to be prepared. With 0, one that is
                not is left to itself, and nothing is told.
            draining_seconds: The longest wait, after that, for the events to be recorded.
        """
        if self._journal is None:
            return
        self._journal.close()
        started = time.monotonic()
        self._wait_while(lambda: not is_recorder_ready(self._path.parent), preparing_seconds)
        if is_recorder_ready(self._path.parent):
            self._wait_while(lambda: True, draining_seconds)
        elif preparing_seconds == 0:
            return
        if self._is_pending():
            self._tell(f"no answer within {time.monotonic() - started:.0f} s")

    def _wait_while(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait while a condition holds and a living recorder may still record."""
        deadline = time.monotonic() + seconds
        while condition() and self._is_pending() and time.monotonic() < deadline:
            time.sleep(_POLLING_SECONDS)

    def _is_pending(self) -> bool:
        """Tell whether a recorder is at work on the journal; tell the user if it has failed."""
        alive = is_recorder_alive(self._path.parent)  # asked first: it may end when it is done
        self._tell_failure()
        if self._is_told or is_recorded(self._path):
            return False
        if not alive:
            self._tell("the recorder has ended")
        return alive

    def _tell_failure(self) -> None:
        with suppress(OSError):  # on a disk that is full or gone
            if not self._is_told and (reason := failure_of(self._path)):
                self._tell(reason)
                note_told(self._path)
        self._tell_refusal()

    def _tell_refusal(self) -> None:
        with suppress(OSError):
            if reason := take_refusal(self._path):
                self._tell_loss(reason)

    def _tell_earlier_failures(self) -> None:
        """Tell what happened only after the stage in question had ended."""
        with suppress(OSError):
            for journal in untold_failures(self._path.parent):
                self._warn(f"{failure_of(journal)}; in an earlier stage", "stopped")
                note_told(journal)
            for reason in take_refusals(self._path.parent):
                self._warn(f"{reason}; in an earlier stage", "is incomplete")

    def _lose(self, event: Event, reason: str) -> None:
        """Owe the journal what has to come before anything else: the run's start, and the loss."""
        if isinstance(event, RunStarted):
            self._owed.append(event)
        elif not any(isinstance(owed, TagsSet) for owed in self._owed):
            self._owed.append(TagsSet({INCOMPLETE_TAG: f"not all could be written ({reason})"}))
        self._tell_loss(reason)

    def _tell_loss(self, reason: str) -> None:
        if not self._has_lost:
            self._has_lost = True
            self._warn(reason, "is incomplete")

    def _tell(self, reason: str) -> None:
        if not self._is_told:
            self._is_told = True
            self._warn(reason, "stopped")

    def _warn(self, reason: str, state: str) -> None:
        line = f"warning: tracking to {self._store} {state} ({reason}); the stage goes on"
        with suppress(OSError):  # a log on the same full disk
            print(line, file=sys.stderr, flush=True)
