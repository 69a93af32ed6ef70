"""A champion of the registry behind `mlflow models serve`."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, NoReturn
from urllib.request import ProxyHandler, build_opener

import psutil
import torch

from diptych.errors import UserError
from diptych.files import read_json
from diptych.model_files import MODEL_FILE
from diptych.models import load_trained
from diptych.promotion.record import Family
from diptych.tracking.client import connect, failures_in_one_line
from diptych.tracking.loopback import HOST, address_of, check_port
from diptych.tracking.model_records import check_folder, download_model
from diptych.tracking.packing import pack_model
from diptych.tracking.registry import CHAMPION, Registry, model_name
from diptych.tracking.store import Store

_STARTING_SECONDS = 120.0
_STOPPING_SECONDS = 10.0


class ServingError(UserError):
    """There is nothing to serve, or its server does not go on."""


@dataclass(frozen=True, slots=True)
class Champion:
    """A registered model's champion, copied here and checked.

    Attributes:
        version: Its number in the registry.
        folder: As `save_model` or `save_pair` wrote it.
    """

    version: int
    folder: Path


def serve_champion(
    store: Store, prefix: str, family: Family, port: int, num_workers: int
) -> NoReturn:
    """Serve a family's champion on the loopback interface until this process is ended.

    Only weights and description come from the registry. They are wrapped anew: in a folder that
    somebody has changed, MLflow would execute what it finds.

    Args:
        store: Whose registry.
        prefix: Of the registered models' names.
        family: Which of them.
        port: Must be free.
        num_workers: Processes, each with the model; they share the cores.

    Raises:
        PortError: when the port is taken.
        ServingError: when there is no champion, or the server ends by itself.
        StoreError: when its files are not those that were registered, or the store does not answer.
    """
    check_port(port)
    name = model_name(prefix, family)
    with TemporaryDirectory(prefix="diptych-serve-") as temporary:
        champion = fetch_champion(store, name, family, Path(temporary, "registered"))
        packed = Path(temporary, "model")
        image_shape = read_json(champion.folder / MODEL_FILE)["image_shape"]
        pack_model(packed, champion.folder, image_shape, {})
        with model_server(packed, port, num_workers) as server:
            where = f"{address_of(port)}/invocations"
            print(f"{name}@{CHAMPION}, version {champion.version}: {where}", flush=True)
            code = server.wait()
    raise ServingError(f"{name}: the server must go on (it ended with exit code {code})")


def fetch_champion(store: Store, name: str, family: Family, destination: Path) -> Champion:
    """Copy a registered model's champion here and check it; nothing in it is executed.

    Args:
        store: Whose registry.
        name: The registered model's.
        family: What it is.
        destination: A folder to make.

    Raises:
        ServingError: when there is no champion.
        CheckpointError: when it cannot be loaded.
        StoreError: when its files are not those that were registered, or the store does not answer.
    """
    client = connect(store)
    registry = Registry(client, name)
    with failures_in_one_line(store):
        number = registry.read().standing.champion
        if number is None:
            raise ServingError(
                f"{name}@{CHAMPION}: must be promoted first, by `diptych promote {family}`"
            )
        version = registry.version(number)
        folder = download_model(client, registry.logged_model(version), destination)
    checked = check_folder(f"{name}/{number}", version.tags, folder, family)
    load_trained(checked)
    return Champion(number, checked)


@contextmanager
def model_server(
    packed: Path, port: int, num_workers: int, log: IO[bytes] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `mlflow models serve` on the loopback interface; inside the block it answers.

    Args:
        packed: The model, as `pack_model` made it.
        port: Must be free.
        num_workers: Processes, each with the model; they share the cores. More than one answer a
            connection that is kept open 40 ms late: then uvicorn does not set TCP_NODELAY.
        log: Takes what the server says; None for this process's stderr.

    Yields:
        The process.

    Raises:
        ServingError: when the server does not start.
    """
    command = [
        *(sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"),
        *("--model-uri", str(packed), "--host", HOST, "--port", str(port)),
        *("--workers", str(num_workers)),
    ]
    # A group of its own: Ctrl-C reaches this process alone, which then ends the whole group.
    said = sys.stderr if log is None else log
    server = subprocess.Popen(
        command, env=_environment(num_workers), stdout=said, stderr=said, process_group=0
    )
    try:
        _wait_until_answering(server, port)
        yield server
    finally:
        _end_group(server)


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _environment(num_workers: int) -> dict[str, str]:
    """Return this environment, in which the server finds uvicorn."""
    programs = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    return {
        **os.environ,
        "PATH": os.pathsep.join(programs),
        "OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // num_workers)),
    }


def _wait_until_answering(server: "subprocess.Popen[bytes]", port: int) -> None:
    ask = build_opener(ProxyHandler({})).open  # past http_proxy, which leads off this machine
    deadline = time.monotonic() + _STARTING_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise ServingError(f"{address_of(port)}: the server must start (it said why above)")
        with suppress(OSError), ask(f"{address_of(port)}/ping", timeout=5):
            return
        time.sleep(0.1)
    raise ServingError(f"{address_of(port)}: the server must answer in {_STARTING_SECONDS:.0f} s")


def _end_group(server: "subprocess.Popen[bytes]") -> None:
    """End the server with its workers, which finish what they are answering."""
    workers: list[psutil.Process] = []
    with suppress(psutil.Error):
        workers = psutil.Process(server.pid).children(recursive=True)
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
    server.wait()
    _, alive = psutil.wait_procs(workers, _STOPPING_SECONDS)
    for worker in alive:
        with suppress(psutil.Error):
            worker.kill()
