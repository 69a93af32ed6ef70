"""The lock, on a real store: one holder, dead ones overtaken, and never a ticket left."""

import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest

from diptych.tracking.liveness import process_tag
from diptych.tracking.promotion_lock import STALE_SECONDS, LockError, acting_user, promotion_lock
from diptych.tracking.store import DATABASE_FILE
from diptych.tracking.tracker import now_ms

NAME = "diptych-cnn"


@pytest.fixture
def client(tmp_path: Path, empty_database: Path) -> Any:
    import mlflow

    shutil.copy(empty_database, tmp_path / DATABASE_FILE)
    return mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / DATABASE_FILE}")


@pytest.fixture
def notices() -> list[str]:
    return []


def tickets(client: Any) -> list[str]:
    return [model.name for model in client.search_registered_models()]


def add_ticket(client: Any, process: psutil.Process | None = None, tag: str | None = None) -> str:
    """The ticket of another process, or of this one as if it were another; with its tag changed."""
    process = process or psutil.Process()
    name = f"{NAME}.lock.0000000000000-{process.pid}"
    tags = {"holder": "ann@host", "pid": str(process.pid), "process": tag or process_tag(process)}
    client.create_registered_model(name, tags)
    return name


@pytest.fixture
def pass_seconds(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets all clocks go on by some seconds."""

    def let_pass(seconds: float) -> None:
        later = now_ms() + round(1000 * seconds)
        monkeypatch.setattr("diptych.tracking.promotion_lock.now_ms", lambda: later)

    return let_pass


def test_a_lock_is_there_while_it_is_held_and_gone_afterwards(
    client: Any, notices: list[str]
) -> None:
    with promotion_lock(client, NAME, notices.append) as raise_if_lost:
        (ticket,) = tickets(client)
        assert ticket.startswith(f"{NAME}.lock.")
        raise_if_lost()
    assert tickets(client) == []
    with pytest.raises(KeyError), promotion_lock(client, NAME, notices.append):
        raise KeyError
    assert tickets(client) == []
    assert notices == []


def test_a_living_holder_is_waited_for_and_then_named(client: Any, notices: list[str]) -> None:
    ticket = add_ticket(client)
    busy = f"{NAME}: must not be in use .* \\(got ann@host, process {os.getpid()}\\)"
    with (
        pytest.raises(LockError, match=busy),
        promotion_lock(client, NAME, notices.append, patience_seconds=0.2),
    ):
        pass
    assert tickets(client) == [ticket]


def test_another_models_lock_is_no_obstacle(client: Any, notices: list[str]) -> None:
    with (
        promotion_lock(client, "diptych_cnn", notices.append),
        promotion_lock(client, "diptych-cnn", notices.append, patience_seconds=0.0),
        promotion_lock(client, "diptych-cnn-2", notices.append, patience_seconds=0.0),
    ):
        assert len(tickets(client)) == 3


def test_a_dead_processes_lock_is_taken_over_with_a_notice(client: Any, notices: list[str]) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        add_ticket(client, psutil.Process(child.pid))
        child.communicate()
    with promotion_lock(client, NAME, notices.append, patience_seconds=0.0):
        assert len(tickets(client)) == 1
    (notice,) = notices
    assert notice.startswith(f"{NAME}: took over the lock of ann@host, process ")
    assert notice.endswith("its process has ended")


def test_a_reused_process_number_is_no_living_holder(client: Any, notices: list[str]) -> None:
    add_ticket(client, tag=f"{process_tag(psutil.Process()).rpartition('/')[0]}/another-start")
    with promotion_lock(client, NAME, notices.append, patience_seconds=0.0):
        assert len(notices) == 1


@pytest.mark.parametrize(("seconds", "is_stale"), [(599, False), (601, True)])
@pytest.mark.parametrize("part", range(3))
def test_a_lock_of_elsewhere_is_stale_after_ten_minutes(
    client: Any,
    notices: list[str],
    pass_seconds: Callable[[float], None],
    part: int,
    seconds: int,
    is_stale: bool,
) -> None:
    """Elsewhere is another machine, boot, or container; a machine's name says nothing."""
    parts = process_tag(psutil.Process()).split("/")
    parts[part], parts[-1] = "elsewhere", "there"
    add_ticket(client, tag="/".join(parts))
    pass_seconds(seconds)
    refusal: AbstractContextManager[object]
    refusal = nullcontext() if is_stale else pytest.raises(LockError)
    with refusal, promotion_lock(client, NAME, notices.append, patience_seconds=0.0):
        assert len(tickets(client)) == 1
    assert len(notices) == is_stale


def test_who_was_overtaken_learns_of_it(client: Any, notices: list[str]) -> None:
    with promotion_lock(client, NAME, notices.append) as raise_if_lost:
        client.delete_registered_model(*tickets(client))
        with pytest.raises(LockError, match=r"\(got taken over by somebody else\)"):
            raise_if_lost()


def test_who_may_have_been_overtaken_stops_before_that(
    client: Any, notices: list[str], pass_seconds: Callable[[float], None]
) -> None:
    """Others that may not delete the ticket leave it there when they go on."""
    with promotion_lock(client, NAME, notices.append) as raise_if_lost:
        pass_seconds(STALE_SECONDS / 2)
        raise_if_lost()
        pass_seconds(STALE_SECONDS)
        with pytest.raises(LockError, match=r"\(got held for 60\d s; others go on after 600 s"):
            raise_if_lost()


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who acts where nobody logs in: a user with a home of their own."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOGNAME", "me")
    return f"me@{platform.node()}"


def set_login(home: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Say in one of the places that MLflow looks at that ann is to be logged in."""
    file = home / ".mlflow" / "credentials"
    file.parent.mkdir()
    name, password = "mlflow_tracking_username = ann\n", "mlflow_tracking_password = secret\n"
    if place in ("variables", "no password"):
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    if place == "variables":
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    if place == "file":
        file.write_text(f"[mlflow]\n{name}{password}")
    if place == "damaged file":
        file.write_text(f"{name}{password}")


@pytest.mark.parametrize(
    ("place", "logs_in"),
    [("variables", True), ("file", True), ("damaged file", False), ("no password", False)],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_who_acts_on_a_server_is_who_logs_in(
    local: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    place: str,
    logs_in: bool,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://mlflow.example.org")
    assert acting_user() == local
    set_login(tmp_path, monkeypatch, place)
    assert acting_user() == (f"ann ({local})" if logs_in else local)


@pytest.mark.parametrize("place", ["variables", "file", "damaged file"])
@pytest.mark.parametrize("uri", ["", "sqlite:///runs.db"])
def test_nobody_logs_in_to_a_database_of_ones_own(
    local: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, place: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    set_login(tmp_path, monkeypatch, place)
    assert acting_user() == local


def test_never_two_hold_it(client: Any, notices: list[str]) -> None:
    inside: list[int] = []
    overlaps: list[list[int]] = []

    def hold(number: int) -> None:
        for _ in range(3):
            with promotion_lock(client, NAME, notices.append):
                inside.append(number)
                time.sleep(0.005)
                if len(inside) > 1:
                    overlaps.append([*inside])
                inside.remove(number)

    threads = [threading.Thread(target=hold, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert overlaps == []
    assert tickets(client) == []
