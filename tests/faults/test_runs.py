"""R16: runs without a process are marked, whatever has become of the process's number."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from diptych.tracking.liveness import PROCESS_TAG, process_tag
from diptych.tracking.mlflow_tracker import JOURNALS_FOLDER
from diptych.tracking.reap import find_stale_runs, reap
from diptych.tracking.store import DATABASE_FILE
from diptych.tracking.sync import sync
from tests.faults.outcomes import not_tried
from tests.faults.tiers import trials
from tests.faults.trainings import Training, started_trainer
from tests.faults.waiting import wait_until
from tests.tracking.conftest import empty_database

__all__ = ["empty_database"]  # a fixture from beside

REUSED = "process id reused, each beside a live run"
_LAST_NUMBER = Path("/proc/sys/kernel/ns_last_pid")


def processes_in(root: Path) -> list[psutil.Process]:
    """The training and the recorder of a project: nobody else works in its folder."""
    found = []
    for number in psutil.pids():
        try:
            process = psutil.Process(number)
            if process.cwd() == str(root):
                found.append(process)
        except psutil.Error:
            pass
    return found


def is_empty(root: Path) -> bool:
    return not processes_in(root)


def statuses(client: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for run in client.search_runs([one.experiment_id for one in client.search_experiments()]):
        found.setdefault(str(run.info.run_name), []).append(run.info.status)
    return found


@pytest.fixture
def store(tmp_path: Path, empty_database: Path) -> str:
    shutil.copy(empty_database, tmp_path / DATABASE_FILE)
    return f"sqlite:///{tmp_path / DATABASE_FILE}"


def test_runs_whose_processes_were_killed_are_marked_and_no_others(
    tmp_path: Path, store: str, promise: Callable[..., None]
) -> None:
    """Every second one's journal is lost too: `reap` is for those, `sync` for the others."""
    import mlflow

    num = trials(quick=4, full=40, soak=40)  # all of them run at once
    roots = [tmp_path / f"run{number}" for number in range(num + 1)]
    *killed, alive = roots
    client = mlflow.MlflowClient(tracking_uri=store)
    with started_trainer() as trainer:
        for root in roots:
            trainer.start(Training(str(root), store, 6000, 0.1))
        names = {root.name for root in roots}
        assert wait_until(lambda: set(statuses(client)) == names, seconds=120, pause_seconds=0.3)
        for root in killed:
            for process in processes_in(root):
                process.send_signal(signal.SIGKILL)
            assert wait_until(partial(is_empty, root), seconds=120)
        for root in killed[::2]:
            shutil.rmtree(root / JOURNALS_FOLDER)
        for root in roots:
            list(sync(root, {}))
        synced = statuses(client)
        reap(client, find_stale_runs(client, alive))
        reaped = statuses(client)
    recorded = [synced[root.name] == ["KILLED"] for root in killed[1::2]]
    lost = [synced[root.name] == ["RUNNING"] for root in killed[::2]]
    marked = [reaped[root.name] == ["KILLED"] for root in killed[::2]]
    assert all(lost)
    promise("R16", "journal lost", len(marked), sum(marked))
    promise("R16", "journal there: `diptych sync`", len(recorded), sum(recorded))
    promise("R16", "live one untouched", 1, int(reaped[alive.name] == ["RUNNING"]))


def test_a_process_that_got_the_number_of_a_dead_one_does_not_save_its_run(
    tmp_path: Path, store: str, promise: Callable[..., None]
) -> None:
    import mlflow

    if not os.access(_LAST_NUMBER, os.W_OK):
        not_tried("R16", REUSED, "here nobody may choose a process's number")
    client = mlflow.MlflowClient(tracking_uri=store)
    experiment = client.create_experiment("any")
    num, marked = trials(quick=2, full=20), 0
    for _ in range(num):
        command = [sys.executable, "-c", "input()"]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as first:
            tag = process_tag(psutil.Process(first.pid))
            first.communicate()
        run_id = client.create_run(experiment, 1, {PROCESS_TAG: tag}).info.run_id
        with namesake_of(first.pid) as second:
            assert second.pid == first.pid
            live_tag = process_tag(psutil.Process(second.pid))
            live = client.create_run(experiment, 1, {PROCESS_TAG: live_tag}).info.run_id
            stale = find_stale_runs(client, tmp_path)
            marked += [run.run_id for run in stale] == [run_id]
            reap(client, stale)
            second.communicate()
        client.set_terminated(live)
    promise("R16", REUSED, num, marked)


def namesake_of(number: int) -> "subprocess.Popen[bytes]":
    """Start a process with a number that is free."""
    for _ in range(100):
        _LAST_NUMBER.write_text(str(number - 1))
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        if process.pid == number:
            return process
        process.communicate()
    return not_tried("R16", REUSED, "another process takes the number each time")
