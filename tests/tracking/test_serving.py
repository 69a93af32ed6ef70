"""The champion behind a real `mlflow models serve`, and what is not served."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from diptych.checkpoints import save_model
from diptych.errors import UserError
from diptych.files import read_json, write_json
from diptych.model_files import DIGESTS, sealed
from diptych.models import load_pair, pair_sha256
from diptych.promotion.record import ModelRecord
from diptych.tracking.client import connect
from diptych.tracking.events import ModelLogged, RunEnded, RunStarted
from diptych.tracking.loopback import HOST, address_of
from diptych.tracking.recorder import MlflowRecorder
from diptych.tracking.registry import CHAMPION, Registry
from diptych.tracking.served import ServedPair
from diptych.tracking.serving import fetch_champion, free_port, serve_champion
from diptych.tracking.store import DATABASE_FILE, Store, find_store
from tests.stages.conftest import write_params
from tests.tracking.served_pairs import SHAPE, digits, save_small_pair

pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own

NAME = "diptych-pair"
Answer = tuple[int, Any]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair's folder. Not to change."""
    return save_small_pair(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def registered(pair: Path, empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose store has a champion. Not to change."""
    root = tmp_path_factory.mktemp("registered")
    shutil.copy(empty_database, root / DATABASE_FILE)
    write_params(root, {})
    store = find_store(root, {})
    recorder = MlflowRecorder(store, "journal")
    recorder.record(RunStarted("evaluate", {}, None, 0))
    recorder.record(ModelLogged(str(pair), "pair"))
    recorder.record(RunEnded("FINISHED", 1))
    client = connect(store)
    experiment = client.get_experiment_by_name(store.experiment)
    assert experiment is not None
    (logged,) = client.search_logged_models([experiment.experiment_id])
    registry = Registry(client, NAME)
    tags = {key: logged.tags[key] for key in DIGESTS}
    registry.set_alias(CHAMPION, registry.register(record_of(logged), tags, "A card."))
    return root


def record_of(logged: Any) -> ModelRecord:
    sha256 = logged.tags["weights_sha256"]
    return ModelRecord(
        family="pair",
        version=None,
        run_id=logged.source_run_id,
        model_id=logged.model_id,
        model_status="READY",
        weights_sha256=sha256,
        stored_weights_sha256=sha256,
        description_sha256=logged.tags["description_sha256"],
        stored_description_sha256=logged.tags["description_sha256"],
        image_shape=SHAPE,
        dataset_sha256="",
        test_sha256="",
        is_dirty=False,
        figures={},
        per_image=None,
    )


@pytest.fixture(scope="module")
def served(registered: Path) -> Iterator[int]:
    """The port on which `diptych serve` serves the champion; its processes are gone afterwards."""
    port = free_port()
    code = "from diptych.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", "--port", str(port)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "OMP_NUM_THREADS": "1",  # as here: another number may change the last bits
        # As behind a company's proxy, from which nothing leads back here.
        "http_proxy": f"http://{HOST}:1",
        "no_proxy": "",
    }
    with (
        (registered / "log").open("wb") as log,
        subprocess.Popen(
            command, cwd=registered, env=environment, stdout=subprocess.PIPE, stderr=log
        ) as server,
    ):
        assert server.stdout is not None
        line = server.stdout.readline().decode()  # printed when the server answers
        processes = psutil.Process(server.pid).children(recursive=True)
        try:
            expected = f"{NAME}@champion, version 1: {address_of(port)}/invocations\n"
            assert line == expected, (registered / "log").read_text()
            yield port
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=120) == 128 + signal.SIGTERM
    assert psutil.wait_procs(processes, timeout=10)[1] == []
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect((HOST, port))


def post(port: int, body: bytes, content_type: str = "application/json") -> Answer:
    request = urllib.request.Request(  # noqa: S310  # loopback
        f"{address_of(port)}/invocations", body, {"Content-Type": content_type}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize("num_images", [1, 2, 256])
def test_answers_over_http_are_those_of_the_model(served: int, pair: Path, num_images: int) -> None:
    images = digits(num_images)
    status, answer = post(served, json.dumps({"inputs": images.tolist()}).encode())
    assert status == 200
    offline = ServedPair(load_pair(pair)).predict(images)
    assert answer["predictions"] == offline.to_dict(orient="records")


IMAGE = np.zeros(SHAPE, int).tolist()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "valid JSON"),
        (b"[", "valid JSON"),
        (b"[]", "JSON dictionary"),
        (b'{"images": []}', "exactly one of the input fields"),
        (b'{"inputs": []}', "numpy array"),
        (b'{"inputs": "image"}', "image"),
        (json.dumps({"inputs": IMAGE}), "(1, 8, 8) does not match expected shape (-1, 1, 8, 8)"),
        (json.dumps({"inputs": [IMAGE[0]]}), "does not match expected shape"),
        (json.dumps({"inputs": [[[[256] * 8] * 8]]}), "256 out of bounds for uint8"),
        (json.dumps({"inputs": [[[[-1] * 8] * 8]]}), "-1 out of bounds for uint8"),
        (json.dumps({"inputs": [[[[None] * 8] * 8]]}), "int() argument must be"),
        (json.dumps({"inputs": [[[["a"] * 8] * 8]]}), "invalid literal for int()"),
        (json.dumps({"inputs": [[[[0] * 8] * 7 + [[0] * 7]]]}), "inhomogeneous shape"),
        (json.dumps({"inputs": {"a": [1]}}), "single n-dimensional array"),
        (json.dumps({"dataframe_split": {"columns": ["a"], "data": [[1]]}}), "a"),
    ],
)
def test_a_bad_request_is_answered_by_what_was_expected(
    served: int, body: str | bytes, said: str
) -> None:
    status, answer = post(served, body.encode() if isinstance(body, str) else body)
    assert status == 400
    assert said in json.loads(answer)["message"]
    assert "Traceback" not in answer


def test_another_kind_of_content_is_refused(served: int) -> None:
    assert post(served, digits(1).tobytes(), "application/octet-stream")[0] == 415


def test_the_registered_champion_is_what_mlflow_loads(
    registered: Path, pair: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", find_store(registered, {}).uri)
    loaded = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    images = digits(5)
    expected = ServedPair(load_pair(pair)).predict(images)
    assert loaded.predict(images).equals(expected)


def message_of(store: Store, name: str, folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        fetch_champion(store, name, "pair", folder)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_without_a_champion_nothing_is_served(
    registered: Path, empty_database: Path, tmp_path: Path
) -> None:
    store = find_store(registered, {})
    assert message_of(store, "other-pair", tmp_path / "a").startswith(
        "other-pair@champion: must be"
    )
    shutil.copy(empty_database, tmp_path / DATABASE_FILE)
    assert "diptych promote pair" in message_of(find_store(tmp_path, {}), NAME, tmp_path / "b")
    nowhere = find_store(tmp_path / "nowhere", {})
    assert "nowhere/mlflow.db: must" in message_of(nowhere, NAME, tmp_path / "c")


@pytest.mark.parametrize("described", [False, True])
def test_other_files_than_those_registered_are_not_served(
    registered: Path, tmp_path: Path, described: bool
) -> None:
    """Weights that were changed alone, or together with every description of them."""
    root = tmp_path / "copy"
    shutil.copytree(registered, root)
    (stored,) = registered.glob("mlartifacts/**/data/pair")
    kept = shutil.copytree(stored, tmp_path / "kept")
    try:
        change_weights(stored, described)
        message = message_of(find_store(root, {}), NAME, tmp_path / "fetched")
    finally:
        shutil.rmtree(stored)
        shutil.move(kept, stored)
    assert message.startswith(f"{NAME}/1: must have weights ")


def test_a_version_without_digests_is_not_served(registered: Path, tmp_path: Path) -> None:
    store = find_store(registered, {})
    client = Registry(connect(store), NAME).client
    kept = client.get_model_version(NAME, "1").tags["description_sha256"]
    client.delete_model_version_tag(NAME, "1", "description_sha256")
    try:
        message = message_of(store, NAME, tmp_path / "fetched")
    finally:
        client.set_model_version_tag(NAME, "1", "description_sha256", kept)
    assert message.startswith(f"{NAME}/1: must have tags with both digests (got weights ")
    assert message.endswith(", description none): promote it anew")


def test_another_level_than_the_registered_one_is_not_served(
    registered: Path, tmp_path: Path
) -> None:
    (path,) = registered.glob("mlartifacts/**/data/pair/model.json")
    kept = path.read_bytes()
    write_json(path, sealed(read_json(path) | {"abstention_level": 0.5}))
    try:
        load_pair(path.parent)  # it agrees with itself
        message = message_of(find_store(registered, {}), NAME, tmp_path / "fetched")
    finally:
        path.write_bytes(kept)
    assert message.startswith(f"{NAME}/1: must have weights ")
    assert message.count(", description ") == 2


def change_weights(pair: Path, described: bool) -> None:
    weights = pair / "cnn" / "weights.safetensors"
    if not described:
        weights.write_bytes(weights.read_bytes()[:-1] + b"?")
        return
    import safetensors.torch

    state = safetensors.torch.load_file(weights)
    state["temperature"] += 1
    save_model(pair / "cnn", state, read_json(pair / "cnn" / "model.json"))
    members = {
        one: read_json(pair / one / "model.json")["weights_sha256"] for one in ("cnn", "vae")
    }
    descriptions = {
        one: read_json(pair / one / "model.json")["description_sha256"] for one in ("cnn", "vae")
    }
    changed = {
        "members": members,
        "member_descriptions": descriptions,
        "weights_sha256": pair_sha256(members),
    }
    write_json(pair / "model.json", sealed(read_json(pair / "model.json") | changed))
    load_pair(pair)  # it agrees with itself


def test_code_in_the_stored_folder_is_not_executed(registered: Path, tmp_path: Path) -> None:
    (stored,) = (path.parent for path in registered.glob("mlartifacts/**/MLmodel"))
    kept = (stored / "MLmodel").read_text()
    mark = tmp_path / "mark"
    (stored / "code" / "evil.py").write_text(f"open({str(mark)!r}, 'w')\n")
    evil = kept.replace("loader_module: diptych.tracking.served", "loader_module: evil")
    (stored / "MLmodel").write_text(evil)
    try:
        fetched = fetch_champion(find_store(registered, {}), NAME, "pair", tmp_path / "fetched")
    finally:
        (stored / "MLmodel").write_text(kept)
        (stored / "code" / "evil.py").unlink()
    assert fetched.version == 1
    assert not mark.exists()
    assert "evil" in evil


def test_a_taken_port_is_said_at_once(registered: Path) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"^127\.0\.0\.1:{port}: must be a free port"):
            serve_champion(find_store(registered, {}), "diptych", "pair", port, 1)
