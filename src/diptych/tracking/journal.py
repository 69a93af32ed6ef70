"""What a run tells, on disk before anywhere else: it outlives a kill, and a server that is gone.

A journal is a folder: `events.jsonl`, a line that says what this is and then one line per event,
and `files/`, whatever is too large for a line. It needs nothing outside of itself, so that it can
be read when the run's own files are long gone. A line counts once its newline is there.
"""

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diptych.errors import UserError
from diptych.locks import is_locked, try_lock
from diptych.tracking.events import (
    EVENT_TYPES,
    INCOMPLETE_TAG,
    ArtifactLogged,
    Event,
    FigureLogged,
    ImageLogged,
    ModelLogged,
    ParentRun,
    RunStarted,
    TableLogged,
    TagsSet,
)

EVENTS_FILE = "events.jsonl"

_VERSION = 1
_FILES_FOLDER = "files"
_PICTURE_FILE = "picture.png"
_KINDS = {kind.__name__: kind for kind in EVENT_TYPES}
# The field of an event that stands for a file: a picture's bytes, or an absolute path.
_FILE_FIELDS = {
    ImageLogged: "png",
    FigureLogged: "png",
    ArtifactLogged: "path",
    TableLogged: "path",
    ModelLogged: "folder",
}


class JournalError(UserError):
    """A journal is of another version."""


class Journal:
    """A journal that this process writes; locked as long as it is open and the process lives."""

    def __init__(self, folder: Path, about: Mapping[str, str]) -> None:
        """Start a journal.

        Args:
            folder: Its folder, which must not exist.
            about: What its first line says, for whoever finds it; no secrets.

        Raises:
            OSError: when the folder exists or cannot be written.
        """
        (folder / _FILES_FOLDER).mkdir(parents=True)
        self._folder = folder
        self._num_files = 0
        unlocked = folder / f"{EVENTS_FILE}.new"
        self._file = unlocked.open("xb", buffering=0)
        try_lock(self._file)
        self._write({"journal": _VERSION, **about})
        # Whoever sees it under its own name sees it locked.
        unlocked.replace(folder / EVENTS_FILE)

    def append(self, event: Event) -> None:
        """Write one event and copy the files that it names.

        Raises:
            OSError: when a file cannot be copied or the line not be written; then it is not there.
        """
        fields = asdict(event)
        if field := _FILE_FIELDS.get(type(event)):
            fields[field] = self._keep(fields[field])
        if "metrics" in fields:
            fields["metrics"] = {
                key: None if math.isnan(value) else value
                for key, value in fields["metrics"].items()
            }
        self._write({"event": type(event).__name__, **fields})

    def close(self) -> None:
        """Unlock the journal: nothing more will come."""
        self._file.close()

    def _keep(self, content: bytes | str) -> str:
        """Store a picture or copy a file or folder; return its place in the journal's folder."""
        self._num_files += 1
        place = Path(_FILES_FOLDER, str(self._num_files))
        folder = self._folder / place
        name = _PICTURE_FILE if isinstance(content, bytes) else Path(content).name
        try:
            folder.mkdir()
            _write_copy(content, folder / name)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)  # a part would fill what room there is
            raise
        return (place / name).as_posix()

    def _write(self, record: Mapping[str, Any]) -> None:
        line = json.dumps(record, allow_nan=False, ensure_ascii=False).encode() + b"\n"
        size = os.fstat(self._file.fileno()).st_size
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError("no room for the whole line")
        except OSError:
            self._file.truncate(size)
            self._file.seek(size)
            raise


def _write_copy(content: bytes | str, place: Path) -> None:
    if isinstance(content, bytes):
        place.write_bytes(content)
    elif Path(content).is_dir():
        shutil.copytree(content, place)
    else:
        shutil.copyfile(content, place)


class JournalReader:
    """Reads a journal from its start and on as it grows.

    A line that is damaged, or whose file is, reads as the tag `diptych.incomplete`, which says so:
    what is around it is as good as ever. Where the run's start is damaged, a start with that tag
    stands in for it, named as the journal.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offset = 0
        self._is_started = False

    def new_events(self) -> Iterator[tuple[Event, int]]:
        """Yield every whole event that was not yet read, with the offset in bytes behind it.

        Raises:
            JournalError: when the journal is of another version.
        """
        with (self._folder / EVENTS_FILE).open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                if self._offset == len(line):
                    self._check_version(line)
                else:
                    yield self._event_of(line), self._offset
                    self._is_started = True

    def _check_version(self, line: bytes) -> None:
        """Refuse what another version wrote; a damaged line says nothing, and the rest is tried."""
        version = _VERSION
        with suppress(ValueError, LookupError, TypeError):
            version = json.loads(line)["journal"]
        if version != _VERSION:
            path = self._folder / EVENTS_FILE
            raise JournalError(
                f"{path}: must be a journal of version {_VERSION} (got {version!r:.80})"
            )

    def _event_of(self, line: bytes) -> Event:
        try:
            return self._decoded(line)
        except (ValueError, LookupError, TypeError, AttributeError, FileNotFoundError) as error:
            place = self._offset - len(line)
            what = f"{EVENTS_FILE}: byte {place}: must be an event (got {error!r:.160})"
        tags = {INCOMPLETE_TAG: what}
        if self._is_started:
            return TagsSet(tags)
        return RunStarted(self._folder.name, tags, None, last_written_ms(self._folder))

    def _decoded(self, line: bytes) -> Event:
        fields = json.loads(line)
        kind = _KINDS[fields.pop("event")]
        if field := _FILE_FIELDS.get(kind):
            path = self._folder / fields[field]
            path.stat()  # there must be something
            fields[field] = path.read_bytes() if field == "png" else str(path)
        if fields.get("metrics"):
            metrics = fields["metrics"].items()
            fields["metrics"] = {
                key: math.nan if value is None else value for key, value in metrics
            }
        if fields.get("parent"):
            fields["parent"] = ParentRun(**fields["parent"])
        event: Event = kind(**fields)
        return event


def about(folder: Path) -> dict[str, str]:
    """Return what a journal's first line says of it; empty when it is damaged."""
    with suppress(OSError, ValueError), (folder / EVENTS_FILE).open("rb") as file:
        described = json.loads(file.readline())
        if isinstance(described, dict):
            return {key: str(value) for key, value in described.items()}
    return {}


def is_being_written(folder: Path) -> bool:
    """Tell whether the process that writes a journal has it open; a killed one has not."""
    return is_locked(folder / EVENTS_FILE)


def last_written_ms(folder: Path) -> int:
    """Return when a journal was last written, in milliseconds since 1970."""
    return (folder / EVENTS_FILE).stat().st_mtime_ns // 1_000_000


def delete_journal(folder: Path) -> None:
    """Delete a journal at one stroke, and then its remains."""
    (folder / EVENTS_FILE).unlink()
    shutil.rmtree(folder)
