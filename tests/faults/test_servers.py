"""X2: who can reach the server that this project starts on one's own machine."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from diptych.tracking.serving import free_port
from tests.faults.tiers import chosen_tier
from tests.faults.waiting import wait_until
from tests.tracking.conftest import empty_database

__all__ = ["empty_database"]  # a fixture from beside

pytestmark = pytest.mark.skipif(chosen_tier() == "quick", reason="a server's start, for one line")


def listening(server: psutil.Process) -> list[tuple[str, int]]:
    """The addresses on which a process and its children take connections."""
    family = [server, *server.children(recursive=True)]
    connections = [one for process in family for one in process.net_connections(kind="inet")]
    return [one.laddr[:2] for one in connections if one.status == psutil.CONN_LISTEN and one.laddr]


def test_the_views_are_served_to_this_machine_alone(
    tmp_path: Path, empty_database: Path, promise: Callable[..., None]
) -> None:
    port = free_port()
    steering = ("MLFLOW_", "DVC_", "DIPTYCH_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    with subprocess.Popen(
        [Path(sys.executable).with_name("diptych"), "ui", "--port", str(port)],
        cwd=tmp_path,
        env=kept | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        server = psutil.Process(process.pid)
        try:
            found = wait_until(lambda: listening(server), seconds=180, pause_seconds=0.5)
        finally:
            for one in [*server.children(recursive=True), server]:
                one.kill()
    assert port in [number for _, number in found]
    others = [address for address, _ in found if address != "127.0.0.1"]
    promise("X2", "`diptych ui`, addresses", len(found), len(found) - len(others))
