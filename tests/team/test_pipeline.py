"""A small project on the team's server: recorded and promoted by a member who has but a login."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from diptych.params import read_yaml

from .conftest import Account, TeamServer
from .projects import logged_in, make_project, repro, run_as

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# `make test` gives a file to one worker: they share a server and a project.
pytestmark = pytest.mark.pipeline


@dataclass(frozen=True)
class Recorded:
    """A project after `dvc repro`, what that printed, and the runs that it left on the server."""

    folder: Path
    output: str
    parent: "Run"
    stages: "dict[str, Run]"


@pytest.fixture(scope="module")
def recorded(team_server: TeamServer, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = make_project(tmp_path_factory.mktemp("pipeline") / "project")
    output = repro(folder, team_server.environment(team_server.member))
    with logged_in(team_server, team_server.member) as client:
        experiment = client.get_experiment_by_name("diptych")
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    stages = {str(run.info.run_name): run for run in runs if run is not parent}
    assert len(stages) == len(runs) - 1
    return Recorded(folder, output, parent, stages)


@pytest.fixture
def client(team_server: TeamServer) -> "Iterator[MlflowClient]":
    """The member's client."""
    with logged_in(team_server, team_server.member) as client:
        yield client


def test_the_parent_and_its_stages_are_recorded(recorded: Recorded) -> None:
    assert set(recorded.stages) == set(read_yaml(recorded.folder / "dvc.yaml")["stages"])
    runs = [recorded.parent, *recorded.stages.values()]
    assert {run.info.status for run in runs} == {"FINISHED"}
    parents = {run.data.tags["mlflow.parentRunId"] for run in recorded.stages.values()}
    assert parents == {recorded.parent.info.run_id}
    assert "cnn.accuracy" in recorded.parent.data.metrics
    assert "warning" not in recorded.output


def test_artifacts_lie_in_the_bucket_and_come_back(
    recorded: Recorded, client: "MlflowClient", team_server: TeamServer, tmp_path: Path
) -> None:
    run = recorded.stages["evaluate"].info
    assert str(run.artifact_uri).startswith("mlflow-artifacts:/")
    fetched = client.download_artifacts(run.run_id, "evaluation", str(tmp_path))
    pictures = sorted((recorded.folder / "evaluation").glob("*.png"))
    assert len(pictures) > 2
    for picture in pictures:
        assert Path(fetched, picture.name).read_bytes() == picture.read_bytes()
    keys = keys_in_bucket(team_server)
    assert {
        f"{run.experiment_id}/{run.run_id}/artifacts/evaluation/{p.name}" for p in pictures
    } <= keys
    assert not list(recorded.folder.rglob("mlartifacts"))
    assert not list(recorded.folder.rglob("mlflow.db"))


def keys_in_bucket(server: TeamServer) -> set[str]:
    import boto3

    settings = server.settings
    bucket = boto3.resource(
        "s3",
        endpoint_url=settings["MLFLOW_S3_ENDPOINT_URL"],
        aws_access_key_id=settings["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
        region_name=settings["AWS_DEFAULT_REGION"],
    ).Bucket(settings["ARTIFACTS_BUCKET"])
    return {found.key for found in bucket.objects.all()}


@pytest.mark.filterwarnings("ignore")  # mlflow's own
def test_models_are_loaded_from_the_server(recorded: Recorded, client: "MlflowClient") -> None:
    import mlflow.pyfunc

    logged = client.search_logged_models([recorded.parent.info.experiment_id])
    assert {model.name for model in logged} >= {"cnn", "vae"}
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 12, 12), dtype=np.uint8)
    for model in logged:
        description = (recorded.folder / "models" / model.name / "model.json").read_bytes()
        assert model.tags["weights_sha256"] == json.loads(description)["weights_sha256"]
        assert str(model.status) == "READY"
        assert len(mlflow.pyfunc.load_model(f"models:/{model.model_id}").predict(images)) == 3


@pytest.mark.filterwarnings("ignore")  # mlflow's own
def test_a_member_promotes_and_another_may_look(
    recorded: Recorded, client: "MlflowClient", team_server: TeamServer
) -> None:
    import mlflow.pyfunc

    ann, ben = map(team_server.environment, (team_server.member, team_server.stranger))
    promoted = run_as(recorded.folder, ann, "diptych", "promote", "cnn", "--allow-dirty")
    assert promoted.returncode == 0, promoted.stdout + promoted.stderr
    assert client.get_model_version_by_alias("diptych-cnn", "champion").version == "1"
    refused = run_as(recorded.folder, ben, "diptych", "promote", "cnn", "--allow-dirty")
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert "must be granted" in line
    assert len(client.search_model_versions("name = 'diptych-cnn'")) == 1
    images = np.zeros((2, 1, 12, 12), np.uint8)
    with logged_in(team_server, team_server.stranger):
        assert len(mlflow.pyfunc.load_model("models:/diptych-cnn@champion").predict(images)) == 2


def test_the_pictures_of_a_card_are_there(
    recorded: Recorded, client: "MlflowClient", team_server: TeamServer
) -> None:
    ann = team_server.environment(team_server.member)
    decided = run_as(recorded.folder, ann, "diptych", "promote", "pair", "--allow-dirty")
    assert decided.returncode in (0, 1), decided.stderr
    (version,) = client.search_model_versions("name = 'diptych-pair'")
    addresses = re.findall(r"!\[.*\]\((\S+)\)", str(version.description))
    assert len(addresses) == 2
    for address in addresses:
        answer = team_server.ask("GET", f"/{address}", team_server.member)
        assert answer.status == 200
        assert answer.body.startswith(b"\x89PNG")


def test_nothing_that_is_kept_or_shown_holds_a_secret(
    recorded: Recorded, team_server: TeamServer
) -> None:
    shown = recorded.output + team_server.log.read_text(encoding="utf-8")
    for run in (recorded.parent, *recorded.stages.values()):
        shown += str(run.to_dictionary())
    written = [path for path in recorded.folder.rglob("*") if path.is_file()]
    assert len(written) > 50
    for secret in team_server.secrets:
        assert secret not in shown
        assert [path for path in written if secret.encode() in path.read_bytes()] == []


def test_without_a_login_the_stage_goes_on_and_says_so_in_a_line(
    recorded: Recorded, team_server: TeamServer
) -> None:
    wrong = Account(team_server.user, "not-the-right-password")
    again = ("--force", "--single-item", "train_vae")
    output = repro(recorded.folder, team_server.environment(wrong), *again)
    (warning,) = [line for line in output.splitlines() if "warning" in line.lower()]
    assert warning.startswith(f"warning: tracking to {team_server.uri} stopped (")
    assert "401" in warning
    assert wrong.password not in output
