"""Runs that look alive though their process has ended: found, and marked as KILLED."""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.tracking.liveness import PROCESS_TAG, Census, machine_key
from diptych.tracking.mlflow_tracker import JOURNALS_FOLDER
from diptych.tracking.recording import journals_in
from diptych.tracking.tags import EXECUTION_TAG, JOURNAL_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_PAGE = 500


@dataclass(frozen=True, slots=True)
class StaleRun:
    """A run that is RUNNING though its process has ended.

    Attributes:
        run_id: MLflow's.
        name: The run's.
        started_ms: When it began, in milliseconds since 1970.
        last_seen_ms: When it last told anything.
    """

    run_id: str
    name: str
    started_ms: int
    last_seen_ms: int


def find_stale_runs(client: "MlflowClient", root: Path) -> list[StaleRun]:
    """Return the runs of this machine that are RUNNING though their process has ended.

    Left out are those of other machines, containers and users, whose processes cannot be seen
    from here, and those whose journal is still to be recorded: that will end them.

    Args:
        client: Of the store.
        root: The project's main folder, where journals are.
    """
    running = list(_running_here(client))  # before the census: who is gone then, is gone
    unrecorded = _unrecorded(root)
    census = Census()
    return [
        _described(run)
        for run in running
        if census.has_ended(run.data.tags[PROCESS_TAG])
        and not unrecorded & {run.data.tags.get(JOURNAL_TAG), run.data.tags.get(EXECUTION_TAG)}
    ]


def reap(client: "MlflowClient", stale: Sequence[StaleRun]) -> None:
    """Mark runs as KILLED, at the time when they last told anything.

    Args:
        client: Of the store.
        stale: As `find_stale_runs` returns them; to mark one twice changes nothing.
    """
    for run in stale:
        client.set_terminated(run.run_id, "KILLED", run.last_seen_ms)


def _running_here(client: "MlflowClient") -> "Iterator[Run]":
    experiments = [one.experiment_id for one in client.search_experiments()]
    condition = f"attributes.status = 'RUNNING' AND tags.`{PROCESS_TAG}` LIKE '{machine_key()}/%'"
    token = None
    while experiments:
        page = client.search_runs(experiments, condition, max_results=_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _unrecorded(root: Path) -> AbstractSet[str | None]:
    """Return the names of all journals that there are, and of the executions they are from."""
    names: set[str | None] = set()
    for folder in (root / JOURNALS_FOLDER).glob("*"):
        if journals := journals_in(folder):
            names |= {folder.name.partition("-")[0], *(journal.name for journal in journals)}
    return names


def _described(run: "Run") -> StaleRun:
    times = [metric.timestamp for metric in run.data.to_proto().metrics]
    started = int(run.info.start_time)
    return StaleRun(run.info.run_id, str(run.info.run_name), started, max([started, *times]))
