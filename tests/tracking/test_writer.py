"""A store that is slow, failing or gone costs the stage one line, no time and no error."""

import http.server
import os
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from diptych.locks import try_lock
from diptych.tracking.events import (
    INCOMPLETE_TAG,
    ArtifactLogged,
    Event,
    RunEnded,
    RunStarted,
    TagsSet,
)
from diptych.tracking.journal import JournalReader
from diptych.tracking.process import is_recorder_alive
from diptych.tracking.recording import RefusedError, is_recorded, record_journals
from diptych.tracking.runs import stage_run
from diptych.tracking.writer import JournalWriter

SECRET = "hunter2"  # noqa: S105  # of nothing
END = RunEnded("FINISHED", 0)


class Gate:
    """A recorder that waits until it is opened, and fails or refuses on request."""

    def __init__(self, fails_on: str | None = None, refuses: str | None = None) -> None:
        self.open = threading.Event()
        self.recorded: list[Event] = []
        self._fails_on = fails_on
        self._refuses = refuses

    def record(self, event: Event, again: bool) -> None:  # noqa: ARG002  # part of the call
        self.open.wait(30)
        if isinstance(event, TagsSet) and self._fails_on in event.tags:
            raise OSError(f"https://me:{SECRET}@host said no")
        if isinstance(event, TagsSet) and self._refuses in event.tags:
            raise RefusedError from OSError(f"https://me:{SECRET}@host has no such thing")
        self.recorded.append(event)


class RecorderThread:
    """A folder's recorder, alive until it is ended; ready from its start or never."""

    def __init__(self, folder: Path, gate: Gate, ready: bool = True) -> None:
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self._folder, self._gate, self._ready = folder, gate, ready

    def start(self) -> None:
        self._lock = (self._folder / "lock").open("ab")
        assert try_lock(self._lock)
        if self._ready:
            (self._folder / "ready").touch()
        self.thread.start()

    def end(self) -> None:
        self._gate.open.set()
        self.over.set()
        self.thread.join(10)
        assert not self.thread.is_alive()

    def _run(self) -> None:
        with self._lock:
            record_journals(self._folder, lambda _: self._gate, self.over.is_set)


Recorders = Callable[..., RecorderThread]


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorders]:
    """Makes recorders of the folder `tmp_path`."""
    made: list[RecorderThread] = []

    def make(gate: Gate, ready: bool = True) -> RecorderThread:
        made.append(RecorderThread(tmp_path, gate, ready))
        return made[-1]

    yield make
    for one in made:
        one.end()


def named(*names: str) -> list[TagsSet]:
    return [TagsSet({name: ""}) for name in names]


def nothing() -> None:
    pass


def leave_to(recorder: RecorderThread, journal: Path) -> None:
    """Write a journal with the tag "a" that is recorded only when its writer has gone."""
    writer = JournalWriter(journal, "store", recorder.start)
    events: list[Event] = [*named("a"), END]
    for event in events:
        writer.put(event)
    writer.close(preparing_seconds=0.0, draining_seconds=10.0)
    recorder.end()


def test_events_reach_the_recorder_in_order_and_putting_them_does_not_wait(
    tmp_path: Path, recorder: Recorders, capfd: pytest.CaptureFixture[str]
) -> None:
    gate = Gate()
    writer = JournalWriter(tmp_path / "run", "store", recorder(gate).start)
    events: list[Event] = [*named(*map(str, range(100))), END]
    for event in events:
        writer.put(event)
    assert gate.recorded == []
    gate.open.set()
    writer.close(preparing_seconds=10.0, draining_seconds=10.0)
    assert gate.recorded == events
    assert is_recorded(tmp_path / "run")
    assert capfd.readouterr().err == ""


def test_a_failure_of_the_recorder_is_told_in_one_line_without_secrets(
    tmp_path: Path, recorder: Recorders, capfd: pytest.CaptureFixture[str]
) -> None:
    gate = Gate(fails_on="b")
    gate.open.set()
    writer = JournalWriter(tmp_path / "run", f"https://me:{SECRET}@host:1", recorder(gate).start)
    events: list[Event] = [*named("a", "b", "c"), END]
    for event in events:
        writer.put(event)
    writer.close(preparing_seconds=10.0, draining_seconds=10.0)
    (line,) = capfd.readouterr().err.splitlines()
    assert line == (
        "warning: tracking to https://***@host:1 stopped (OSError: https://***@host said no);"
        " the stage goes on"
    )
    # The journal is whole, for another time; nothing in it is secret.
    assert [event for event, _ in JournalReader(tmp_path / "run").new_events()] == events
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if SECRET in path.read_text()] == []


def test_what_the_store_refuses_is_told_in_one_line_without_secrets(
    tmp_path: Path, recorder: Recorders, capfd: pytest.CaptureFixture[str]
) -> None:
    gate = Gate(refuses="b")
    gate.open.set()
    writer = JournalWriter(tmp_path / "run", "store", recorder(gate).start)
    events: list[Event] = [*named("a", "b", "b", "c"), END]
    for event in events:
        writer.put(event)
    writer.close(preparing_seconds=10.0, draining_seconds=10.0)
    (line,) = capfd.readouterr().err.splitlines()
    assert line == (
        "warning: tracking to store is incomplete "
        "(TagsSet was refused (OSError: https://***@host has no such thing)); the stage goes on"
    )
    assert is_recorded(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir() if "refused" in path.name] == []


def test_what_was_refused_after_its_stage_had_ended_is_told_by_the_next_once(
    tmp_path: Path, recorder: Recorders, capfd: pytest.CaptureFixture[str]
) -> None:
    leave_to(recorder(Gate(refuses="a"), ready=False), tmp_path / "1")
    assert capfd.readouterr().err == ""
    for told in (1, 0):
        JournalWriter(tmp_path / f"next-{told}", "store", nothing).leave()
        assert capfd.readouterr().err.count("no such thing); in an earlier stage") == told


def test_closing_gives_up_on_a_store_that_never_answers(
    tmp_path: Path, recorder: Recorders, capfd: pytest.CaptureFixture[str]
) -> None:
    gate = Gate()
    thread = recorder(gate)
    writer = JournalWriter(tmp_path / "run", "store", thread.start)
    events: list[Event] = [*named("a", "b"), END]
    for event in events:
        writer.put(event)
    started = time.monotonic()
    writer.close(preparing_seconds=10.0, draining_seconds=0.1)
    assert time.monotonic() - started < 2
    assert "no answer within 0 s" in capfd.readouterr().err
    thread.end()
    assert gate.recorded == events  # if it answers after all, nothing is lost


@pytest.mark.parametrize("preparing_seconds", [0.0, 0.1])
def test_a_recorder_that_is_still_starting_is_waited_for_only_if_asked(
    preparing_seconds: float,
    tmp_path: Path,
    recorder: Recorders,
    capfd: pytest.CaptureFixture[str],
) -> None:
    gate = Gate()
    thread = recorder(gate, ready=False)
    writer = JournalWriter(tmp_path / "run", "store", thread.start)
    writer.put(END)
    started = time.monotonic()
    writer.close(preparing_seconds, draining_seconds=10.0)
    assert preparing_seconds <= time.monotonic() - started < 2
    assert ("no answer" in capfd.readouterr().err) == (preparing_seconds > 0)
    thread.end()
    assert gate.recorded == [END]


def test_a_recorder_that_has_died_is_told_and_not_waited_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    writer = JournalWriter(tmp_path / "run", "store", nothing)
    writer.put(END)
    started = time.monotonic()
    writer.close(preparing_seconds=60.0, draining_seconds=60.0)
    assert time.monotonic() - started < 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line == "warning: tracking to store stopped (the recorder has ended); the stage goes on"
    assert not is_recorded(tmp_path / "run")


def test_what_failed_after_its_stage_had_ended_is_told_by_the_next_once(
    tmp_path: Path, recorder: Recorders, capfd: pytest.CaptureFixture[str]
) -> None:
    leave_to(recorder(Gate(fails_on="a"), ready=False), tmp_path / "1")
    assert capfd.readouterr().err == ""
    for number in (2, 3):
        again = Gate()
        again.open.set()
        thread = recorder(again)
        writer = JournalWriter(tmp_path / str(number), "store", thread.start)
        writer.put(END)
        writer.close(preparing_seconds=10.0, draining_seconds=10.0)
        thread.end()
        assert again.recorded == [END]
        told = capfd.readouterr().err
        assert (told.count("\n"), "said no; in an earlier stage" in told) == (
            (1, True) if number == 2 else (0, False)
        )


def test_only_what_cannot_be_written_down_is_lost_and_the_run_says_so(
    tmp_path: Path, recorder: Recorders, capfd: pytest.CaptureFixture[str]
) -> None:
    gate = Gate()
    gate.open.set()
    thread = recorder(gate)
    writer = JournalWriter(tmp_path / "run", "store", thread.start)
    missing = ArtifactLogged(str(tmp_path / "missing"), None)
    events: list[Event] = [*named("a"), missing, *named("b"), missing, END]
    for event in events:
        writer.put(event)
    writer.close(preparing_seconds=10.0, draining_seconds=10.0)
    thread.end()
    first, mark, second, another, end = gate.recorded
    assert [first, second, end] == [*named("a", "b"), END]
    assert mark == another
    assert isinstance(mark, TagsSet)
    assert "FileNotFoundError" in mark.tags[INCOMPLETE_TAG]
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("warning: tracking to store is incomplete (FileNotFoundError: ")


def test_a_disk_that_is_full_for_a_moment_costs_what_was_told_then(
    tmp_path: Path, recorder: Recorders, capfd: pytest.CaptureFixture[str]
) -> None:
    gate = Gate()
    gate.open.set()
    thread = recorder(gate)
    about = {"experiment": 200 * "a"}  # longer than what is said on stderr, a file here
    writer = JournalWriter(tmp_path / "run", "store", thread.start, about)
    size = (tmp_path / "run" / "events.jsonl").stat().st_size
    start = RunStarted("stage", {}, None, 0)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1, unlimited[1]))
    try:
        writer.put(start)
        for event in named("a", "b"):
            writer.put(event)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    writer.put(*named("c"))
    writer.put(END)
    writer.close(preparing_seconds=10.0, draining_seconds=10.0)
    thread.end()
    began, mark, *others = gate.recorded  # without its start, a run could not be recorded
    assert (began, others) == (start, [*named("c"), END])
    assert isinstance(mark, TagsSet)
    assert "no room for the whole line" in mark.tags[INCOMPLETE_TAG]
    assert capfd.readouterr().err.count("\n") == 1


def test_a_loss_that_cannot_even_be_told_does_not_stop_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = JournalWriter(tmp_path / "run", "store", nothing)
    read_only = os.open(os.devnull, os.O_RDONLY)
    with os.fdopen(os.dup(2), "w") as stderr:
        os.dup2(read_only, stderr.fileno())
        monkeypatch.setattr(sys, "stderr", stderr)
        writer.put(ArtifactLogged(str(tmp_path / "missing"), None))
        writer.close(preparing_seconds=0.0, draining_seconds=0.0)
        os.dup2(2, stderr.fileno())
    os.close(read_only)


def test_where_no_recorder_can_be_started_the_journal_is_whole(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise OSError("no more processes")

    writer = JournalWriter(tmp_path / "run", "store", refuse)
    events: list[Event] = [*named("a", "b"), END]
    for event in events:
        writer.put(event)
    writer.close(preparing_seconds=10.0, draining_seconds=10.0)
    assert [event for event, _ in JournalReader(tmp_path / "run").new_events()] == events
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("warning: tracking to store stopped (OSError: no more processes)")


def test_a_folder_that_takes_no_journal_costs_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    writer = JournalWriter(tmp_path / "file" / "run", "store", nothing)
    writer.put(END)
    writer.close(preparing_seconds=10.0, draining_seconds=10.0)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("warning: tracking to store stopped (NotADirectoryError: ")


@contextmanager
def refusing() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening
        yield taken.getsockname()[1]


@contextmanager
def stalling() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


class Broken(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(500, "the disk is full")

    do_POST = do_GET  # noqa: N815  # the name that http.server calls

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name
        pass


@contextmanager
def failing() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join(10)


@pytest.mark.usefixtures("recorder_threads")
@pytest.mark.parametrize("server", [refusing, stalling, failing])
def test_a_server_that_does_not_work_costs_one_line(
    server: Callable[[], AbstractContextManager[int]],
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with server() as port:
        uri = f"http://me:{SECRET}@127.0.0.1:{port}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        started = time.monotonic()
        with stage_run("train_cnn", project / "params.yaml", ["train_cnn"]) as tracker:
            in_stage = time.monotonic()
            for epoch in range(100):
                tracker.log_metrics({"loss": 1.0}, epoch)
            training = time.monotonic() - in_stage
        whole = time.monotonic() - started
    assert training < 0.5
    assert whole < 11
    shown = capfd.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    shown_store = re.escape(f"http://***@127.0.0.1:{port}")
    expected = rf"warning: tracking to {shown_store} stopped \(.+\); the stage goes on"
    assert re.fullmatch(expected, line)
    assert SECRET not in line


STAGE_ON_A_STALLED_SERVER = """
import sys, threading, time
from pathlib import Path
from diptych.tracking.mlflow_tracker import JOURNALS_FOLDER
from diptych.tracking.process import is_recorder_ready
from diptych.tracking.runs import stage_run
params = Path(sys.argv[1])
with stage_run("train_cnn", params, ["train_cnn"]) as tracker:
    (folder,) = (params.parent / JOURNALS_FOLDER).iterdir()
    while not is_recorder_ready(folder):  # in the test's clock, importing mlflow is no waiting
        time.sleep(0.01)
    tracker.log_metrics({"loss": 1.0}, 0)
    started = time.monotonic()
threading._register_atexit(lambda: print(time.monotonic() - started))
"""


def test_a_stalled_server_holds_a_process_up_for_about_ten_seconds(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stalling() as port:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:{port}")
        command = [sys.executable, "-c", STAGE_ON_A_STALLED_SERVER, str(project / "params.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
        (line,) = done.stderr.splitlines()
        assert line.endswith("the stage goes on")
        assert float(done.stdout) < 13
        (folder,) = (project / ".diptych" / "tracking").iterdir()
        deadline = time.monotonic() + 30
        while is_recorder_alive(folder):  # it gives up too
            assert time.monotonic() < deadline
            time.sleep(0.1)
    journals = [path for path in folder.rglob("*") if path.is_file()]
    assert [path for path in journals if SECRET in path.read_text()] == []
    assert len(journals) > 1  # for another time
