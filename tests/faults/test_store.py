"""R14: eight processes that start together on a fresh store all record, and it stays whole."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.faults.tiers import trials

NUM_PROCESSES = 8

# Forks of one process that has imported mlflow: importing it takes far longer than what is tried.
ROUNDS = """
import json, multiprocessing, os, sys, time
from pathlib import Path
import mlflow
import mlflow.store.tracking.sqlalchemy_store
from diptych.tracking.events import MetricsLogged, RunEnded, RunStarted
from diptych.tracking.journal import Journal
from diptych.tracking.process import main

def ours(barrier, root, number):
    folder = root / ".diptych" / "tracking" / str(number)
    journal = Journal(folder / f"run-{number}", {})
    journal.append(RunStarted("stage", {"number": str(number)}, None, 1))
    journal.append(MetricsLogged({"loss": 1.0}, 1, 1))
    journal.append(RunEnded("FINISHED", 2))
    journal.close()
    barrier.wait()
    main([str(root), str(folder)])

def stock(barrier, root, number):
    os.chdir(root)
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    barrier.wait()
    mlflow.set_experiment("diptych")
    with mlflow.start_run():
        mlflow.log_metric("loss", 1.0, step=1)

def quiet(work, *arguments):
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    work(*arguments)

fork = multiprocessing.get_context("fork")
for line in sys.stdin:
    kind, root, num = json.loads(line)
    barrier = fork.Barrier(num)
    work = {"ours": ours, "stock": stock}[kind]
    children = [
        fork.Process(target=quiet, args=(work, barrier, Path(root), number))
        for number in range(num)
    ]
    for child in children:
        child.start()
    deadline = time.monotonic() + 40
    for child in children:
        child.join(max(0, deadline - time.monotonic()))
        if child.exitcode is None:
            child.kill()
            child.join()
    print(json.dumps([child.exitcode for child in children]), flush=True)
"""


def is_whole(root: Path) -> bool:
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        try:
            statuses = database.execute("select status from runs").fetchall()
            metrics = database.execute("select count(*) from metrics").fetchone()
            integrity = database.execute("pragma integrity_check").fetchone()
        except sqlite3.DatabaseError:
            return False
    good = [("FINISHED",)] * NUM_PROCESSES
    return (statuses, metrics, integrity) == (good, (NUM_PROCESSES,), ("ok",))


def test_eight_processes_start_on_a_fresh_store(
    tmp_path: Path, promise: Callable[..., None]
) -> None:
    num, num_stock = trials(quick=1, full=20), trials(quick=1, full=3, soak=3)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")
    } | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "CRITICAL"}
    kept = {"ours": 0, "stock": 0}
    with subprocess.Popen(
        [sys.executable, "-c", ROUNDS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as rounds:
        assert rounds.stdin is not None
        assert rounds.stdout is not None
        for number, kind in enumerate(["ours"] * num + ["stock"] * num_stock):
            root = tmp_path / str(number)
            root.mkdir()
            rounds.stdin.write(json.dumps([kind, str(root), NUM_PROCESSES]) + "\n")
            rounds.stdin.flush()
            codes = json.loads(rounds.stdout.readline())
            kept[kind] += codes == [0] * NUM_PROCESSES and is_whole(root)
        rounds.stdin.close()
        assert rounds.wait(60) == 0
    promise(
        "R14",
        f"{NUM_PROCESSES} processes",
        num,
        kept["ours"],
        stock_tried=num_stock,
        stock_survived=kept["stock"],
    )
