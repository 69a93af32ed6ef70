"""A store brought level with the journals that no recorder could record in it.

Every journal is whole and says how far it is recorded, so that recording goes on there. Whoever
records holds the lock of the journals' folder; two synchronisations at once take turns.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diptych.errors import UserError
from diptych.locks import is_locked, locked_folder, try_lock
from diptych.tracking.client import connect
from diptych.tracking.completion import Execution, tell_skipped_stages
from diptych.tracking.events import RunStarted
from diptych.tracking.journal import JournalError, JournalReader, about, is_being_written
from diptych.tracking.mlflow_tracker import JOURNALS_FOLDER
from diptych.tracking.process import LOCK_FILE, SNAPSHOT_FOLDER, record_folder, tidy_up
from diptych.tracking.recorder import prepare_mlflow
from diptych.tracking.recording import (
    failure_of,
    forget_failure,
    is_recorded,
    journals_in,
    note_failure,
    reason_of,
)
from diptych.tracking.secrets import redacted
from diptych.tracking.store import Store, find_store
from diptych.tracking.tags import EXECUTION_TAG


class SyncError(UserError):
    """Some runs could not be recorded; their journals stay."""


@dataclass(frozen=True, slots=True)
class SyncedRun:
    """A run whose journal there was.

    Attributes:
        name: The run's; its journal's if the run had not yet told it.
        store: The store's address, without secrets.
        is_recorded: Whether the store now has all of it; otherwise it is still told, or another
            process is recording it.
    """

    name: str
    store: str
    is_recorded: bool


def sync(root: Path, environment: Mapping[str, str]) -> Iterator[SyncedRun]:
    """Record every journal that nobody else is recording, each in the store that it was told for.

    Args:
        root: The project's main folder.
        environment: The process's environment variables: an address with credentials is in
            MLFLOW_TRACKING_URI, since no journal holds them.

    Yields:
        The runs, as they are recorded.

    Raises:
        SyncError: at the end, when a store does not answer or a run could not be recorded.
    """
    everything = root / JOURNALS_FOLDER
    if not everything.is_dir():
        return
    stores = _Stores(root, environment)
    failures: list[str] = []
    with locked_folder(everything):
        for folder in sorted(everything.iterdir()):
            try:
                yield from _bring_level(folder, stores)
            except UserError as error:
                failures.append(str(error))
    if failures:
        raise SyncError("; ".join(dict.fromkeys(failures)))


def unrecorded_journals(root: Path) -> list[Path]:
    """Return the journals that nobody writes and nobody records: what `sync` would record."""
    folders = sorted((root / JOURNALS_FOLDER).glob("*"))
    return [one for folder in folders if not _is_busy(folder) for one in journals_in(folder)]


class _Stores:
    """The stores of a project's journals, each opened but once."""

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        self.root = root
        self._configured = find_store(root, environment)
        self._refusals: dict[str, UserError | None] = {}

    def store_of(self, journals: Sequence[Path]) -> Store:
        """Return the store that a folder's journals are for, without asking it anything."""
        told = next(filter(None, map(about, journals)), {})
        experiment = told.get("experiment", self._configured.experiment)
        known = redacted(self._configured.uri)
        address = told.get("store", known)
        if address == known:
            address = self._configured.uri
        elif "***" in address:
            raise SyncError(
                f"{address}: must be in MLFLOW_TRACKING_URI with its credentials (got {known})"
            )
        named = {"MLFLOW_TRACKING_URI": address, "MLFLOW_EXPERIMENT_NAME": experiment}
        return find_store(self.root, named)

    def open(self, store: Store) -> None:
        """See to it that a store is there and answers; ask each but once.

        Raises:
            UserError: when it does not.
        """
        if store.uri not in self._refusals:
            self._refusals[store.uri] = self._refusal_of(store)
        if refusal := self._refusals[store.uri]:
            raise refusal

    def _refusal_of(self, store: Store) -> UserError | None:
        if store.database is not None and not store.database.parent.is_dir():
            return SyncError(f"{store.database.parent}: must be there: runs belong there")
        try:
            prepare_mlflow(store)
            connect(store)
        except UserError as error:
            return error
        except Exception as error:
            return SyncError(f"{redacted(store.uri)}: must answer ({reason_of(error)})")
        return None


def _bring_level(folder: Path, stores: _Stores) -> Iterator[SyncedRun]:
    journals = journals_in(folder)
    if not journals and not (folder / SNAPSHOT_FOLDER).is_dir():
        return
    store = stores.store_of(journals)
    runs = {journal: _name_of(journal) for journal in journals}
    if not _is_busy(folder):
        stores.open(store)
        with (folder / LOCK_FILE).open("ab") as lock:
            if try_lock(lock):
                _record(folder, store, stores.root)
    for journal, name in runs.items():
        if failure_of(journal) is None:
            yield SyncedRun(name, redacted(store.uri), is_recorded(journal))
    for journal in (*journals_in(folder), folder / SNAPSHOT_FOLDER):
        if not _is_busy(folder) and (reason := failure_of(journal)):
            raise SyncError(f"{journal}: must be recorded in {redacted(store.uri)} ({reason})")


def _record(folder: Path, store: Store, root: Path) -> None:
    """Record a folder's journals, and then what its execution did not have to run."""
    snapshot = folder / SNAPSHOT_FOLDER
    for journal in (*journals_in(folder), snapshot):
        forget_failure(journal)
    record_folder(folder, store, lambda: True)
    if snapshot.is_dir() and not journals_in(folder):
        try:
            _tell_skipped_stages(folder, store, root)
        except Exception as error:
            note_failure(snapshot, error)
        record_folder(folder, store, lambda: True)
    tidy_up(folder)


def _tell_skipped_stages(folder: Path, store: Store, root: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=store.uri)
    experiments = [one.experiment_id for one in client.search_experiments()]
    condition = f"tags.`{EXECUTION_TAG}` = '{folder.name.partition('-')[0]}'"
    for parent in client.search_runs(experiments, condition, max_results=1):
        snapshot = folder / SNAPSHOT_FOLDER
        # Where it ran is not known any more; only files of the right hash are taken from there.
        tell_skipped_stages(Execution(parent.info.run_id, store, folder, snapshot, root, root))


def _is_busy(folder: Path) -> bool:
    """Tell whether somebody records a folder's journals, or a stage still writes one."""
    return is_locked(folder / LOCK_FILE) or any(map(is_being_written, journals_in(folder)))


def _name_of(journal: Path) -> str:
    try:
        for event, _ in JournalReader(journal).new_events():
            return event.name if isinstance(event, RunStarted) else journal.name
    except (JournalError, OSError):
        pass
    return journal.name
