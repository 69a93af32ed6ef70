"""From journals to a recorder, as they grow; what was recorded once is never recorded twice."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol, runtime_checkable

from diptych.tracking.events import INCOMPLETE_TAG, Event, RunEnded, RunStarted, TagsSet
from diptych.tracking.journal import (
    EVENTS_FILE,
    JournalReader,
    delete_journal,
    is_being_written,
    last_written_ms,
)
from diptych.tracking.secrets import redacted

_FAILURE_FILE = "failure"
_TOLD_FILE = "failure.told"
_OFFSET_FILE = "offset"
_REFUSAL_SUFFIX = ".refused"  # beside the journal, which is deleted when all else is recorded
_UNKNOWN = -1
_MAX_REASON = 1000  # less than any store takes of a tag
_POLLING_SECONDS = 0.05


@runtime_checkable
class Recorder(Protocol):
    """Writes the events of one run to a store; may take its time and may raise."""

    def record(self, event: Event, again: bool) -> None:
        """Write one event; `again`: it may have been written before, wholly or in part.

        Raises:
            RefusedError: when the store will never take the event.
        """


class RefusedError(Exception):
    """A store that answers does not take an event, however often it is told."""


class Recording:
    """One run's way from its journal to a recorder; goes on where an earlier one stopped.

    An event that the store refuses is no failure: it is lost, and the run says so. The first
    failure ends the recording, except that the end of the run is still tried: a run must not look
    alive for ever if the store is back by then. The journal of a failed one stays, with the offset
    from which it is still to be recorded.
    """

    def __init__(self, journal: Path, recorder: Recorder) -> None:
        """Read a journal for a recorder.

        Args:
            journal: The journal's folder.
            recorder: What writes; new, of this run alone.
        """
        self.journal = journal
        self._recorder = recorder
        self._reader = JournalReader(journal)
        self._recorded = _read_offset(journal)
        self._in_doubt = self._recorded != 0
        self._failed = False
        self._ended = False
        self._refusals: list[str] = []

    def advance(self) -> bool:
        """Record what has been written since; return whether more may come.

        A journal whose writer has gone without a word gets the end that it lacks.
        """
        may_grow = is_being_written(self.journal)  # asked before reading: nothing is missed
        self._attempt(self._record_new)
        if not may_grow and not self._ended:
            killed = RunEnded("KILLED", last_written_ms(self.journal))
            self._attempt(lambda: self._recorder.record(killed, again=False))
            self._ended = True
        if self._ended and not self._failed:
            delete_journal(self.journal)
        return not self._ended

    def _record_new(self) -> None:
        for event, offset in self._reader.new_events():
            self._ended = isinstance(event, RunEnded)
            if self._failed:
                if self._ended:
                    self._recorder.record(event, again=False)
            elif offset > self._recorded:
                self._record(event)
                _write_whole(self.journal / _OFFSET_FILE, str(offset))
            elif isinstance(event, RunStarted | RunEnded):
                # Which run it is; that it, and the run above it, is over.
                self._recorder.record(event, again=True)

    def _record(self, event: Event) -> None:
        """Record an event; once more after a failure, which may have been the answer's alone.

        One that the store refuses is lost, and that alone: the run says so.
        """
        try:
            try:
                self._recorder.record(event, again=self._in_doubt)
            except RefusedError:
                raise
            except Exception:
                self._recorder.record(event, again=True)
        except RefusedError as error:
            if isinstance(event, RunStarted | RunEnded):
                raise
            self._refusals.append(f"{type(event).__name__} was refused ({reason_of(error)})")
            what = "; ".join(dict.fromkeys(self._refusals))
            _write_whole(_refusal_file(self.journal), self._refusals[-1])
            self._recorder.record(TagsSet({INCOMPLETE_TAG: what[:_MAX_REASON]}), again=True)
        self._in_doubt = self._recorded == _UNKNOWN

    def _attempt(self, record: Callable[[], None]) -> None:
        """Record, and once more after a failure, for the end of the run."""
        for _ in range(2):
            try:
                record()
            except Exception as error:
                if self._failed:
                    return
                self._failed = True
                note_failure(self.journal, error)
            else:
                return


def record_journals(
    folder: Path, new_recorder: Callable[[str], Recorder], is_over: Callable[[], bool]
) -> None:
    """Record every journal in a folder, also those that come, until there will be no more.

    Args:
        folder: Holds the journals; those that have failed before are left alone.
        new_recorder: Makes the recorder of a run from the name of its journal.
        is_over: Tells whether no journal will come or grow any more.
    """
    known: set[Path] = set()
    recordings: list[Recording] = []
    while True:
        over = is_over()  # asked before looking: nothing is missed
        for journal in open_journals(folder):
            if journal not in known:
                known.add(journal)
                recordings.append(Recording(journal, new_recorder(journal.name)))
        recordings = [recording for recording in recordings if _goes_on(recording)]
        if over:
            return
        time.sleep(_POLLING_SECONDS)


def _goes_on(recording: Recording) -> bool:
    """Advance one recording; what fails in it must not stop the others."""
    try:
        return recording.advance()
    except Exception as error:
        with suppress(OSError):
            note_failure(recording.journal, error)
        return False


def journals_in(folder: Path) -> list[Path]:
    """Return the journals in a folder that are not recorded to their end, oldest first."""
    return sorted(path.parent for path in folder.glob(f"*/{EVENTS_FILE}"))


def open_journals(folder: Path) -> list[Path]:
    """Return those of them that nothing has failed for."""
    return [journal for journal in journals_in(folder) if failure_of(journal) is None]


def is_recorded(journal: Path) -> bool:
    """Tell whether a journal that there was has been recorded to its end."""
    return not (journal / EVENTS_FILE).exists()


def note_failure(journal: Path, error: BaseException) -> None:
    """Write beside a journal why it could not be recorded, for its stage to tell."""
    _write_whole(journal / _FAILURE_FILE, reason_of(error))


def forget_failure(journal: Path) -> None:
    """Have a journal recorded again that could not be before."""
    (journal / _FAILURE_FILE).unlink(missing_ok=True)


def failure_of(journal: Path) -> str | None:
    """Return why a journal could not be recorded; None when nothing has failed."""
    try:
        return (journal / _FAILURE_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def untold_failures(folder: Path) -> list[Path]:
    """Return the journals whose failure no stage has told yet, oldest first."""
    failed = sorted(path.parent for path in folder.glob(f"*/{_FAILURE_FILE}"))
    return [journal for journal in failed if not (journal / _TOLD_FILE).exists()]


def take_refusal(journal: Path) -> str | None:
    """Return, once, what a store has refused of a journal; None when there is nothing to tell."""
    path = _refusal_file(journal)
    try:
        reason = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    path.unlink(missing_ok=True)
    return reason


def take_refusals(folder: Path) -> list[str]:
    """Return, once, what a store has refused of any journal in a folder."""
    notes = sorted(folder.glob(f"*{_REFUSAL_SUFFIX}"))
    found = [take_refusal(note.with_suffix("")) for note in notes]
    return [reason for reason in found if reason is not None]


def note_told(journal: Path) -> None:
    """Note that the failure of a journal has been told."""
    (journal / _TOLD_FILE).touch()


def reason_of(error: BaseException) -> str:
    """Name the first cause: the outer errors repeat it at length, addresses included."""
    while cause := _cause_of(error):
        error = cause
    text = redacted(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text if len(text) <= 160 else text[:157] + '...'}"


def _cause_of(error: BaseException) -> BaseException | None:
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _read_offset(journal: Path) -> int:
    try:
        return int((journal / _OFFSET_FILE).read_text(encoding="ascii"))
    except FileNotFoundError:
        return 0
    except ValueError:  # a power cut can do that: every event may have been recorded, or none
        return _UNKNOWN


def _refusal_file(journal: Path) -> Path:
    return journal.with_name(journal.name + _REFUSAL_SUFFIX)


def _write_whole(path: Path, text: str) -> None:
    # No fsync: a power cut may cost the note, and then something is recorded again.
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
