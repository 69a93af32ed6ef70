"""Runs without a process are marked; all others are left as they are."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from diptych.execution import process_key
from diptych.tracking import liveness
from diptych.tracking.events import RunStarted
from diptych.tracking.journal import Journal
from diptych.tracking.liveness import PROCESS_TAG, Census, process_tag
from diptych.tracking.mlflow_tracker import JOURNALS_FOLDER
from diptych.tracking.reap import find_stale_runs, reap
from diptych.tracking.store import find_store
from diptych.tracking.tags import EXECUTION_TAG, JOURNAL_TAG
from tests.faults.commands import end_of_diptych

Running = Callable[..., str]


@pytest.fixture
def client(project: Path) -> Any:
    import mlflow

    return mlflow.MlflowClient(tracking_uri=find_store(project, {}).uri)


@pytest.fixture
def running(client: Any) -> Running:
    """Start a run that looks alive, with these tags."""
    experiment = client.create_experiment("any")

    def start(**tags: str) -> str:
        return str(client.create_run(experiment, 1000, tags, "run").info.run_id)

    return start


@pytest.fixture(scope="module")
def dead() -> str:
    """The tag of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        tag = process_tag(psutil.Process(process.pid))
        process.communicate()
    return tag


def status(client: Any, run_id: str) -> str:
    return str(client.get_run(run_id).info.status)


def test_a_run_whose_process_has_ended_is_marked_when_it_last_told_something(
    project: Path, client: Any, running: Running, dead: str
) -> None:
    run_id = running(**{PROCESS_TAG: dead})
    client.log_metric(run_id, "loss", 1.0, timestamp=7000, step=1)
    silent = running(**{PROCESS_TAG: dead})
    stale = find_stale_runs(client, project)
    assert {run.run_id: run.last_seen_ms for run in stale} == {run_id: 7000, silent: 1000}
    for _ in range(2):
        reap(client, stale)
        assert client.get_run(run_id).info.end_time == 7000
        assert status(client, run_id) == "KILLED"
    assert find_stale_runs(client, project) == []


def test_all_others_are_left_as_they_are(
    project: Path, client: Any, running: Running, dead: str
) -> None:
    own = process_tag(psutil.Process())
    machine, boot, visible, key = dead.split("/")
    kept = [
        running(**{PROCESS_TAG: own}),
        running(**{PROCESS_TAG: f"0000/{boot}/{visible}/{key}"}),  # another machine
        running(**{PROCESS_TAG: f"{machine}/{boot}/pid:[1]:0/{key}"}),  # another container
        running(**{PROCESS_TAG: machine}),
        running(),  # not of this project
    ]
    finished = running(**{PROCESS_TAG: dead})
    client.set_terminated(finished, "FINISHED", 5)
    assert find_stale_runs(client, project) == []
    assert {status(client, run_id) for run_id in kept} == {"RUNNING"}
    assert status(client, finished) == "FINISHED"


def test_before_the_machine_was_started_again_there_was_another_process(
    project: Path, client: Any, running: Running
) -> None:
    machine, _, rest = process_tag(psutil.Process()).split("/", 2)
    run_id = running(**{PROCESS_TAG: f"{machine}/another-boot/{rest}"})
    assert [run.run_id for run in find_stale_runs(client, project)] == [run_id]


def test_a_process_with_the_number_of_another_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    me = psutil.Process()
    tag = process_tag(me)
    # Where a tick is longer, the same number of ticks is another start.
    monkeypatch.setattr(os, "sysconf", lambda _: 1)
    reused = process_tag(me)
    monkeypatch.undo()
    census = Census()
    assert not census.has_ended(tag)
    assert census.has_ended(reused)


def test_without_the_systems_id_no_other_boot_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "_text", lambda _: "")
    here = Census()
    me = psutil.Process()
    monkeypatch.setattr(liveness, "boot_id", lambda: "another")
    there = process_tag(me)
    assert not here.has_ended(there)


def test_a_run_that_is_still_to_be_recorded_is_left_to_its_journal(
    project: Path, client: Any, running: Running, dead: str
) -> None:
    running(**{PROCESS_TAG: dead, JOURNAL_TAG: "journal"})
    running(**{PROCESS_TAG: dead, EXECUTION_TAG: "key"})
    assert len(find_stale_runs(client, project)) == 2
    journal = Journal(project / JOURNALS_FOLDER / "key-12345678" / "journal", {})
    journal.append(RunStarted("stage", {}, None, 1))
    journal.close()
    assert find_stale_runs(client, project) == []


def test_the_command_says_what_it_has_marked(
    project: Path, client: Any, running: Running, dead: str
) -> None:
    run_id = running(**{PROCESS_TAG: dead})
    ended = end_of_diptych(project, "reap")
    assert (ended.code, ended.stdout) == (0, f"run ({run_id}): KILLED\n1 runs marked\n")
    again = end_of_diptych(project, "reap")
    assert (again.code, again.stdout) == (0, "0 runs marked\n")
    assert status(client, run_id) == "KILLED"


def test_a_process_is_told_by_its_start_too(dead: str) -> None:
    assert process_key(psutil.Process()) in process_tag(psutil.Process())
    assert not Census().has_ended(process_tag(psutil.Process(os.getppid())))
    assert Census().has_ended(dead)
