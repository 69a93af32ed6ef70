"""The recorder's process: one for all who ask, and none for longer than it is needed."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from diptych.execution import process_key
from diptych.locks import try_lock
from diptych.tracking.journal import Journal
from diptych.tracking.process import (
    _end_of,
    await_recorders,
    is_recorder_alive,
    start_recorder,
)
from diptych.tracking.store import find_store


@pytest.fixture
def me() -> psutil.Process:
    return psutil.Process()


def wait_for(condition: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def recorders_of(folder: Path) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(folder) in (process.info["cmdline"] or []) and "-m" in process.info["cmdline"]
    ]


def statuses(project: Path) -> dict[str, list[str]]:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{project / 'mlflow.db'}")
    found = client.get_experiment_by_name("diptych")
    assert found is not None
    by_name: dict[str, list[str]] = {}
    for run in client.search_runs([found.experiment_id]):
        by_name.setdefault(str(run.info.run_name), []).append(run.info.status)
    return by_name


def test_a_recorder_stays_for_its_pipeline_and_for_every_writer(
    tmp_path: Path, me: psutil.Process
) -> None:
    assert not _end_of(tmp_path, str(me.pid), process_key(me))()
    assert _end_of(tmp_path, str(me.pid), "another process had this number")()
    assert _end_of(tmp_path)()
    journal = Journal(tmp_path / "run", {})
    assert not _end_of(tmp_path)()
    (tmp_path / "run" / "failure").touch()  # the end of the run is still to come
    assert not _end_of(tmp_path)()
    journal.close()
    assert _end_of(tmp_path)()


def test_a_pipeline_that_has_gone_keeps_no_recorder(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    assert _end_of(tmp_path, str(process.pid), "")()


WRITER = """
import sys, time
from pathlib import Path
from diptych.tracking.events import RunStarted
from diptych.tracking.journal import Journal
journal = Journal(Path(sys.argv[1]), {})
journal.append(RunStarted("killed", {}, None, 1))
print(flush=True)
time.sleep(600)
"""


@pytest.fixture
def writer(project: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """A process that writes a journal until it is killed."""
    command = [sys.executable, "-c", WRITER, str(project / ".diptych" / "recorder" / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_many_who_ask_get_one_recorder_which_ends_after_a_killed_writer(
    project: Path, writer: "subprocess.Popen[bytes]", me: psutil.Process
) -> None:
    folder = project / ".diptych" / "recorder"
    arguments = (folder, find_store(project, {}), project, None)
    threads = [threading.Thread(target=start_recorder, args=arguments) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert is_recorder_alive(folder)
    (recorder,) = recorders_of(folder)
    assert me not in recorder.parents()
    assert os.getpgid(recorder.pid) != os.getpgid(0)
    wait_for(lambda: recorder.nice() > me.nice() or me.nice() == 19)
    writer.kill()
    wait_for(lambda: not is_recorder_alive(folder))
    assert not folder.exists()
    assert statuses(project) == {"killed": ["KILLED"]}


DVC = """
import subprocess, sys
for stage in ("first", "second"):
    subprocess.run([sys.executable, "-c", sys.argv[1], sys.argv[2], stage], check=True)
"""
STAGE = """
import os, signal, sys, time
from pathlib import Path
import psutil
from diptych.tracking.mlflow_tracker import JOURNALS_FOLDER
from diptych.tracking.process import is_recorder_alive
from diptych.tracking.runs import stage_run
params, stage = Path(sys.argv[1]), sys.argv[2]
with stage_run(stage, params, []) as tracker:
    (folder,) = (params.parent / JOURNALS_FOLDER).iterdir()
    for process in psutil.process_iter(["pid", "cmdline"]):
        if stage == "first" and str(folder) in (process.info["cmdline"] or []):
            os.kill(process.info["pid"], signal.SIGKILL)
    while stage == "first" and is_recorder_alive(folder):
        time.sleep(0.01)
"""


def test_what_a_dead_recorder_left_is_recorded_by_the_next_stages(
    project: Path, wait_until_recorded: Callable[[Path], None]
) -> None:
    (project / "dvc").write_text(DVC)
    command = [sys.executable, str(project / "dvc"), STAGE, str(project / "params.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    (line,) = done.stderr.splitlines()
    assert line.endswith(" stopped (the recorder has ended); the stage goes on")
    wait_until_recorded(project)
    assert statuses(project) == {
        "first": ["FINISHED"],
        "second": ["FINISHED"],
        "mnist cnn:article vae:small": ["FINISHED"],
    }


def test_only_a_recorder_whose_execution_is_over_is_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "execution"
    folder.mkdir()

    def waited_seconds() -> float:
        started = time.monotonic()
        await_recorders(tmp_path, 0.4)
        return time.monotonic() - started

    assert waited_seconds() < 0.3, "no recorder"
    with (folder / "lock").open("ab") as lock:
        assert try_lock(lock)
        assert waited_seconds() >= 0.4, "it records what has been told"
        journal = Journal(folder / "journal", {})
        assert waited_seconds() < 0.3, "the execution goes on"
        journal.close()
        assert waited_seconds() >= 0.4
