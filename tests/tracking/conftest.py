import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from diptych.execution import is_running
from diptych.locks import try_lock
from diptych.tracking.journal import is_being_written
from diptych.tracking.mlflow_tracker import JOURNALS_FOLDER
from diptych.tracking.process import is_recorder_alive, record_folder
from diptych.tracking.recording import journals_in
from diptych.tracking.store import ARTIFACT_FOLDER, DATABASE_FILE, Store, initialise_database
from tests.tracking.promotions import copied, recorded

__all__ = ["copied", "recorded"]  # fixtures from beside

BACKEND_STORE = "MLFLOW_BACKEND_STORE_URI"
"""Where a server of MLflow takes its store's address from."""

PARAMS = """\
dataset: {name: mnist, sources: [mirrors, "https://me:hunter2@host/x?token=hunter2"]}
train_cnn: {architecture: article, learning_rate: 1e-3, augment: true}
train_vae: {architecture: small}
"""


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("MLFLOW_", "DVC_", "DIPTYCH_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store as `initialise_database` leaves it; creating one takes seconds, copying does not."""
    database = tmp_path_factory.mktemp("template") / DATABASE_FILE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mlflow's own imports warn
        import mlflow.pyfunc  # noqa: F401

        initialise_database(database, database.parent / ARTIFACT_FOLDER)
    return database


@pytest.fixture
def recorder_threads(monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> Iterator[None]:
    """Recorders as threads of this process: importing mlflow for each would take seconds."""
    threads: list[threading.Thread] = []

    def start(folder: Path, store: Store, root: Path, pipeline: psutil.Process | None) -> None:
        lock = (folder / "lock").open("ab")
        if not try_lock(lock):
            lock.close()
            return

        def is_over() -> bool:
            alive = pipeline is not None and is_running(pipeline)
            return not alive and not any(map(is_being_written, journals_in(folder)))

        def record() -> None:
            with lock, warnings.catch_warnings():
                record_folder(folder, store, is_over)

        threads.append(threading.Thread(target=record))
        threads[-1].start()

    monkeypatch.setattr("diptych.tracking.mlflow_tracker.start_recorder", start)
    yield
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def wait_until_recorded() -> Callable[[Path], None]:
    """Wait until no recorder is at work for a project any more."""

    def wait(root: Path) -> None:
        deadline = time.monotonic() + 300
        while any(map(is_recorder_alive, (root / JOURNALS_FOLDER).glob("*"))):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    return wait


@pytest.fixture
def project(
    tmp_path: Path,
    empty_database: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A project with a store, seen from another working directory."""
    folder = tmp_path / "project"
    (folder / ".dvc").mkdir(parents=True)
    (folder / "params.yaml").write_text(PARAMS)
    shutil.copy(empty_database, folder / DATABASE_FILE)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return folder


@pytest.fixture(scope="session")
def server_uri(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[str]:
    """The address of a real MLflow server on loopback."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, folder / DATABASE_FILE)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--workers", "1", "--artifacts-destination", str(folder / "artifacts")),
    ]
    environment = os.environ | {
        BACKEND_STORE: f"sqlite:///{folder / DATABASE_FILE}",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    uri = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{uri}/health", process, folder / "log")
        yield uri
    finally:
        process.terminate()
        process.wait(timeout=120)


def _wait_for(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):  # noqa: S310  # loopback
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the server did not start: {log.read_text()}")
