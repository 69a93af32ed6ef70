"""A store that is slow, failing or gone costs the stage one line, no time and no error."""

import http.server
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from diptych.tracking.events import Event, RunEnded, TagsSet
from diptych.tracking.runs import stage_run
from diptych.tracking.writer import BackgroundWriter

SECRET = "hunter2"  # noqa: S105  # of nothing


class Gate:
    """A recorder that waits until it is opened, and fails on request."""

    def __init__(self, fails_on: str | None = None) -> None:
        self.open = threading.Event()
        self.recorded: list[Event] = []
        self._fails_on = fails_on

    def prepare(self) -> None:
        pass

    def record(self, event: Event) -> None:
        self.open.wait(30)
        if isinstance(event, TagsSet) and self._fails_on in event.tags:
            raise OSError(f"https://me:{SECRET}@host said no")
        self.recorded.append(event)


def named(*names: str) -> list[TagsSet]:
    return [TagsSet({name: ""}) for name in names]


def test_events_are_written_in_order_and_putting_them_does_not_wait() -> None:
    gate = Gate()
    writer = BackgroundWriter(gate, "store")
    events = named(*map(str, range(100)))
    for event in events:
        writer.put(event)
    assert gate.recorded == []
    gate.open.set()
    writer.close(preparing_seconds=10.0, draining_seconds=10.0)
    assert gate.recorded == events


def test_a_failure_ends_the_recording_but_the_end_of_the_run_is_tried(
    capfd: pytest.CaptureFixture[str],
) -> None:
    gate = Gate(fails_on="b")
    gate.open.set()
    writer = BackgroundWriter(gate, f"https://me:{SECRET}@host:1")
    end = RunEnded("FINISHED", 0)
    events: list[Event] = [*named("a", "b", "c", "b"), end]
    for event in events:
        writer.put(event)
    writer.close(preparing_seconds=10.0, draining_seconds=10.0)
    assert gate.recorded == [events[0], end]
    (line,) = capfd.readouterr().err.splitlines()
    assert line == (
        "warning: tracking to https://***@host:1 stopped (OSError: https://***@host said no);"
        " the stage goes on"
    )


def test_closing_gives_up_on_a_store_that_never_answers(capfd: pytest.CaptureFixture[str]) -> None:
    gate = Gate()
    writer = BackgroundWriter(gate, "store")
    for event in named("a", "b"):
        writer.put(event)
    started = time.monotonic()
    writer.close(preparing_seconds=10.0, draining_seconds=0.1)
    assert time.monotonic() - started < 2
    assert "no answer within 0 s" in capfd.readouterr().err
    gate.open.set()
    writer._thread.join(10)
    assert gate.recorded == named("a")  # the one in flight; nothing after the stage has ended
    assert capfd.readouterr().err == ""


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


@pytest.mark.usefixtures("empty_database")
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
from diptych.tracking.runs import stage_run
with stage_run("train_cnn", Path(sys.argv[1]), ["train_cnn"]) as tracker:
    import mlflow  # in the test's clock, importing is no waiting
    tracker.log_metrics({"loss": 1.0}, 0)
    started = time.monotonic()
threading._register_atexit(lambda: print(time.monotonic() - started))
"""


def test_a_stalled_server_holds_a_process_up_for_about_ten_seconds(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stalling() as port:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        command = [sys.executable, "-c", STAGE_ON_A_STALLED_SERVER, str(project / "params.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    (line,) = done.stderr.splitlines()
    assert line.endswith("the stage goes on")
    assert float(done.stdout) < 13
