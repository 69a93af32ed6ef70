"""X3: what is secret stands in no file, store, message or command line of this project."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from diptych.tracking.mlflow_tracker import JOURNALS_FOLDER
from diptych.tracking.promoting import Request, promote
from tests.faults.commands import end_of_diptych
from tests.faults.proxy import FaultProxy
from tests.faults.waiting import wait_for_recorders
from tests.stages.conftest import PROCESSED
from tests.tracking.conftest import empty_database, server_uri
from tests.tracking.promotions import Project, add_execution, images_of, recorded

__all__ = ["empty_database", "recorded", "server_uri"]  # fixtures from beside

SECRET = "hunter2-" + "f" * 24
PARAMS = f"""\
dataset: {{name: mnist, sources: ["https://me:{SECRET}@host/x", "https://host/y?token={SECRET}"]}}
"""
ENVIRONMENT = dict.fromkeys(
    ("MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "DIPTYCH_ANY_PASSWORD"), SECRET
)
# A stage that fails with a message that has the address in it, as libraries' errors do.
STAGE = """
import os, sys
from pathlib import Path
from diptych.tracking.runs import stage_run
try:
    with stage_run("stage", Path("params.yaml"), ["dataset"]) as tracker:
        tracker.log_metrics({"loss": 1.0}, 1)
        print("started", flush=True)
        sys.stdin.readline()
        tracker.log_params({"address": os.environ["MLFLOW_TRACKING_URI"]})
        raise ValueError("stop")
except ValueError:
    pass
"""


@pytest.fixture
def proxy(server_uri: str) -> Iterator[FaultProxy]:
    made = FaultProxy(int(server_uri.rpartition(":")[2]))
    yield made
    made.close()


def has_secret(content: str | bytes) -> bool:
    text = content if isinstance(content, bytes) else content.encode()
    return SECRET.encode() in text


def files_under(folder: Path) -> bytes:
    kept = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return b"".join(str(path).encode() + path.read_bytes() for path in kept)


def test_secrets_stand_nowhere(
    tmp_path: Path,
    proxy: FaultProxy,
    server_uri: str,
    monkeypatch: pytest.MonkeyPatch,
    promise: Callable[..., None],
) -> None:
    root = tmp_path / "project"
    (root / ".dvc").mkdir(parents=True)
    (root / "params.yaml").write_text(PARAMS)
    uri = f"http://me:{SECRET}@127.0.0.1:{proxy.port}"
    environment = os.environ | ENVIRONMENT | {"MLFLOW_TRACKING_URI": uri}
    environment.pop("DIPTYCH_TRACKING", None)
    places: dict[str, str | bytes] = {}
    proxy.begin("503")
    with subprocess.Popen(
        [sys.executable, "-c", STAGE],
        cwd=root,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as stage:
        assert stage.stdout is not None
        stage.stdout.readline()
        places["journals"] = files_under(root / JOURNALS_FOLDER)
        places["command lines"] = json.dumps(
            [one.info["cmdline"] for one in psutil.process_iter(["cmdline"])]
        )
        places["stdout"], places["stderr"] = stage.communicate(b"\n")
    wait_for_recorders(root)
    places["journals of a failure"] = files_under(root / JOURNALS_FOLDER)
    assert b"503" in places["journals of a failure"]

    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for command in ("sync", "doctor", "reap", "status"):
        ended = end_of_diptych(root, command)
        assert ended.code != 0
        places[f"`diptych {command}`, refused"] = ended.stdout + ended.stderr
    proxy.end()
    ended = end_of_diptych(root, "sync")
    assert ended.code == 0, ended.stderr
    places["`diptych sync`"] = ended.stdout + ended.stderr
    places["the store"] = everything_in(server_uri)
    found = [place for place, content in places.items() if has_secret(content)]
    assert all(places[place] for place in ("journals", "stderr", "the store"))
    promise("X3", "", len(places), len(places) - len(found), detail=", ".join(found))


def test_a_refusal_of_artifacts_shows_no_login(
    recorded: Project,
    proxy: FaultProxy,
    server_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    promise: Callable[..., None],
) -> None:
    """MLflow's routes of artifacts raise what `requests` raises, with the whole address in it."""
    server = Project(recorded.root, server_uri, {})
    run_id = add_execution(
        server.client, recorded.root / PROCESSED, tmp_path / "files", images_of(3, 80.0), seed=0
    ).run_id
    outcome = promote(server.registrar(), "pair", Request(run_id), server.evaluate)
    assert outcome.decision.is_promoted
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:{proxy.port}")
    commands = (("lineage", "pair"), ("promote", "pair", "--run", run_id), ("serve", "pair"))
    proxy.forbid("/mlflow-artifacts/")
    refused = [end_of_diptych(recorded.root, *words) for words in commands]
    where = f"http://***@127.0.0.1:{proxy.port}: must permit this to its user"
    shown = [one.is_refusal(where, "403") and not has_secret(one.stderr) for one in refused]
    promise("X3", "refused artifacts", len(commands), sum(shown))


def everything_in(server_uri: str) -> str:
    """All that the server tells of its runs."""
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=server_uri)
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    (run,) = [run for run in runs if run.info.run_name == "stage"]
    assert run.data.params["address"].startswith("http://***@")
    artifacts = [client.download_artifacts(run.info.run_id, "")]
    return json.dumps(run.to_dictionary(), default=str) + str(
        [files_under(Path(path)) for path in artifacts]
    )
