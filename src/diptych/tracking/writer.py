"""A thread between the training and a store that may be slow, failing or gone."""

import queue
import sys
import threading
import time
from typing import Protocol, runtime_checkable

from diptych.tracking.events import Event, RunEnded
from diptych.tracking.secrets import redacted


@runtime_checkable
class Recorder(Protocol):
    """Writes events to a store; may take its time and may raise."""

    def prepare(self) -> None:
        """Do what takes long and needs no server, once, before the first event."""

    def record(self, event: Event) -> None:
        """Write one event."""


class BackgroundWriter:
    """Hands events to a recorder, in order, in a thread of its own.

    The first failure is told in one line on stderr and ends the recording, except that the end of
    the run is still tried: a run must not look alive for ever if the store is back by then.
    """

    def __init__(self, recorder: Recorder, store: str) -> None:
        """Start the thread.

        Args:
            recorder: What writes.
            store: The store's address as a warning may show it.
        """
        self._recorder = recorder
        self._store = redacted(store)
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._prepared = threading.Event()
        self._stopped = threading.Event()
        self._abandoned = False
        # A daemon: a store that never answers must not keep the process alive.
        self._thread = threading.Thread(target=self._drain, name="tracking", daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        """Queue one event; returns at once."""
        self._events.put(event)

    def close(self, preparing_seconds: float, draining_seconds: float) -> None:
        """Wait until everything is written, but not for ever.

        Args:
            preparing_seconds: The longest wait for the recorder to be prepared.
            draining_seconds: The longest wait, after that, for the events to be written.
        """
        self._events.put(None)
        started = time.monotonic()
        self._prepared.wait(preparing_seconds)
        self._thread.join(draining_seconds)
        if self._thread.is_alive():
            self._stop(f"no answer within {time.monotonic() - started:.0f} s")
            self._abandoned = True

    def _drain(self) -> None:
        try:
            self._recorder.prepare()
        except Exception as error:
            self._stop(_reason(error))
            return
        finally:
            self._prepared.set()
        while (event := self._events.get()) is not None:
            self._record(event)

    def _record(self, event: Event) -> None:
        if self._abandoned or (self._stopped.is_set() and not isinstance(event, RunEnded)):
            return
        try:
            self._recorder.record(event)
        except Exception as error:
            self._stop(_reason(error))

    def _stop(self, reason: str) -> None:
        if not self._stopped.is_set():
            self._stopped.set()
            line = f"warning: tracking to {self._store} stopped ({reason}); the stage goes on"
            print(line, file=sys.stderr, flush=True)


def _reason(error: BaseException) -> str:
    """Name the first cause: the outer errors repeat it at length, addresses included."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    text = redacted(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text if len(text) <= 160 else text[:157] + '...'}"
