"""The lock, on a real store: one holder, dead ones overtaken, and never a ticket left."""

import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest

from diptych.execution import process_key
from diptych.tracking import promotion_lock as module
from diptych.tracking.promotion_lock import LockError, promotion_lock
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


def add_ticket(client: Any, pid: int | None = None, **tags: str) -> str:
    """The ticket of another process, or of this one as if it were another; with tags changed."""
    process = psutil.Process(pid)
    name = f"{NAME}.lock.0000000000000-{process.pid}"
    own = {"holder": "ann@host", "pid": str(process.pid), "machine": module._machine()}
    client.create_registered_model(name, {**own, "process": process_key(process), **tags})
    return name


def test_a_lock_is_there_while_it_is_held_and_gone_afterwards(
    client: Any, notices: list[str]
) -> None:
    with promotion_lock(client, NAME, notices.append) as check:
        (ticket,) = tickets(client)
        assert ticket.startswith(f"{NAME}.lock.")
        check()
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
        add_ticket(client, child.pid)
        child.communicate()
    with promotion_lock(client, NAME, notices.append, patience_seconds=0.0):
        assert len(tickets(client)) == 1
    (notice,) = notices
    assert notice.startswith(f"{NAME}: took over the lock of ann@host, process ")
    assert notice.endswith("its process has ended")


def test_a_reused_process_number_is_no_living_holder(client: Any, notices: list[str]) -> None:
    add_ticket(client, process="another start")
    with promotion_lock(client, NAME, notices.append, patience_seconds=0.0):
        assert len(notices) == 1


@pytest.mark.parametrize(("seconds", "is_stale"), [(599, False), (601, True)])
def test_another_machines_lock_is_stale_after_ten_minutes(
    client: Any,
    notices: list[str],
    monkeypatch: pytest.MonkeyPatch,
    seconds: int,
    is_stale: bool,
) -> None:
    add_ticket(client, machine="elsewhere", process="there")
    later = now_ms() + 1000 * seconds
    monkeypatch.setattr("diptych.tracking.promotion_lock.now_ms", lambda: later)
    refusal: AbstractContextManager[object]
    refusal = nullcontext() if is_stale else pytest.raises(LockError)
    with refusal, promotion_lock(client, NAME, notices.append, patience_seconds=0.0):
        assert len(tickets(client)) == 1
    assert len(notices) == is_stale


def test_who_was_overtaken_learns_of_it(client: Any, notices: list[str]) -> None:
    with promotion_lock(client, NAME, notices.append) as check:
        client.delete_registered_model(*tickets(client))
        with pytest.raises(LockError, match="got taken over"):
            check()


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
