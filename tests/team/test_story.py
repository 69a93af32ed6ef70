"""The whole story of a model, told by commands alone: on a project's own store and on the team's.

Two variants are trained and compared. The first is champion until the better one is promoted, and
is refused beside it. The promotion is taken back, the pair is served, and the pair is made again.
"""

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from diptych.models import load_pair
from diptych.params import read_yaml
from diptych.tracking.served import ServedPair
from diptych.tracking.store import DATABASE_FILE
from tests.stages.conftest import Changes

from .conftest import LOOPBACK, Settings, TeamServer, free_port
from .projects import (
    LENIENT,
    ask,
    environment_of,
    git,
    logged_in,
    make_project,
    repro,
    run_as,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# `make test` gives a file to one worker: both stories are told in the same one.
pytestmark = [pytest.mark.pipeline, pytest.mark.filterwarnings("ignore")]  # mlflow's own

NAME = "story"  # of the experiment, and before those of the registered models
CNN, PAIR = f"{NAME}-cnn", f"{NAME}-pair"

# Learning rates of the classifier: it learns next to nothing, and all there is to learn.
TOO_LOW, GOOD = 0.001, 0.03

# The class is told by where a bright row is, so that images must stay where they are.
CHANGES: Changes = {
    "train_cnn": {
        "optimizer": "adamw",
        "schedule": "constant",
        "warmup_fraction": 0.0,
        "num_epochs": 10,
        "pruned_fraction": 0.0,
        "max_shift_pixels": 0.0,
        "max_rotation_degrees": 0.0,
        "max_scale_change": 0.0,
        "view_shift_pixels": 0.0,
    },
    "pair": {"abstention_level": 0.1},  # below 1 / 24 images of validation, nothing abstains
    # Floors alone: what is asked of a model beside the champion is as it ships.
    "promotion": {**LENIENT["promotion"], "prefix": NAME},
}

# The printed commands set up an environment; the real target would install gigabytes.
MAKEFILE = """\
setup:
	mkdir -p .venv/bin
	echo 'export PYTHONPATH="$(CURDIR)/src"' > .venv/bin/activate
"""


@dataclass(frozen=True)
class Project:
    """A project in which one person types commands.

    Attributes:
        folder: The project's.
        settings: Environment variables that name experiment, store and login.
        uri: The store's.
    """

    folder: Path
    settings: Settings
    uri: str

    @property
    def client(self) -> "MlflowClient":
        import mlflow

        return mlflow.MlflowClient(tracking_uri=self.uri)

    def run(self, *command: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        """Run a command and keep what it prints."""
        return run_as(self.folder, self.settings | {"COLUMNS": "200"} | settings, *command)

    def type(self, *command: str, exit_code: int = 0, **settings: str) -> str:
        """Return what a command prints that ends with an exit code."""
        done = self.run(*command, **settings)
        assert done.returncode == exit_code, done.stdout + done.stderr
        return done.stdout

    def number_of(self, alias: str) -> int:
        """Return which version of the classifier an alias names."""
        return int(self.client.get_model_version_by_alias(CNN, alias).version)

    def champion_sha256(self, model: str) -> str:
        """Return the sha256 with which a champion's weights were registered."""
        champion = self.client.get_model_version_by_alias(model, "champion")
        return champion.tags["weights_sha256"]


@pytest.fixture(params=["own store", "team's server"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    """A project whose runs go to a store of its own, or to the team's with a member's login."""
    folder = make_project(tmp_path / "project", CHANGES)
    (folder / "Makefile").write_text(MAKEFILE)
    settings = {"MLFLOW_EXPERIMENT_NAME": NAME}
    if request.param == "own store":
        yield Project(folder, settings, f"sqlite:///{folder / DATABASE_FILE}")
        return
    server: TeamServer = request.getfixturevalue("team_server")
    with logged_in(server, server.member):
        yield Project(folder, settings | server.environment(server.member), server.uri)


def test_from_two_variants_to_the_same_model_again(project: Project) -> None:
    train(project, TOO_LOW)
    there_is_a_champion(project)
    good = train(project, GOOD)
    worse, better = compare(project)
    the_better_is_promoted(project, better)
    the_worse_is_refused(project, worse)
    the_champion_before_is_back(project)
    everybody_sees_what_was_decided(project)
    the_pair_is_served(project)
    the_pair_is_made_again(project, good)


def train(project: Project, learning_rate: float) -> str:
    """Commit a learning rate and run the pipeline with it; return the commit."""
    from dvc.utils.hydra import apply_overrides

    change = f"train_cnn.learning_rate={learning_rate}"
    apply_overrides(project.folder / "params.yaml", [change])
    git(project.folder, "add", "--all")
    git(project.folder, "commit", "--quiet", "--message", change)
    assert "warning" not in repro(project.folder, project.settings)
    return git(project.folder, "rev-parse", "HEAD")


def there_is_a_champion(project: Project) -> None:
    told = project.type("diptych", "promote", "cnn")
    assert f"{CNN} version 1 promoted (champion until now: none)" in told


def compare(project: Project) -> "tuple[Run, Run]":
    """Return the worse and the better variant, each a row of the table of executions."""
    experiment = project.client.get_experiment_by_name(NAME)
    assert experiment is not None
    rows = project.client.search_runs(
        [experiment.experiment_id],
        "tags.`diptych.execution` LIKE '%'",
        order_by=["metrics.`cnn.accuracy` DESC"],
    )
    rates = [float(row.data.params["train_cnn.learning_rate"]) for row in rows]
    assert rates == [GOOD, TOO_LOW]
    assert rows[0].data.metrics["cnn.accuracy"] > 0.9 > rows[1].data.metrics["cnn.accuracy"]
    return rows[1], rows[0]


def the_better_is_promoted(project: Project, better: "Run") -> None:
    """By two people at once: the second finds the model champion already."""
    command = ("diptych", "promote", "cnn", "--run", better.info.run_id)
    with ThreadPoolExecutor(2) as people:
        told = list(people.map(lambda _: project.run(*command), range(2)))
    first, second = sorted(told, key=lambda one: one.returncode)
    assert [first.returncode, second.returncode] == [0, 1], told
    assert f"{CNN} version 2 promoted (champion until now: version 1)" in first.stdout
    assert "already champion" in second.stdout
    description = json.loads((project.folder / "models" / "cnn" / "model.json").read_bytes())
    assert project.champion_sha256(CNN) == description["weights_sha256"]
    assert project.number_of("previous") == 1


def the_worse_is_refused(project: Project, worse: "Run") -> None:
    told = project.type("diptych", "promote", "cnn", "--run", worse.info.run_id, exit_code=1)
    assert f"{CNN} version 1 refused (champion until now: version 2)" in told
    loss = r"(-0\.\d{4}: 0 gained, \d+ lost \(p = 1\))"  # by McNemar's test
    (reason,) = re.findall(rf"cnn: not worse .* {loss} +failed", told)
    *_, entry = json.loads(project.type("diptych", "history", "cnn", "--json"))
    assert any(reason in why for why in entry["why"])
    assert project.number_of("champion") == 2


def the_champion_before_is_back(project: Project) -> None:
    told = project.type("diptych", "rollback", "cnn")
    assert told == f"{CNN}@champion: version 2 -> version 1\n"
    assert project.number_of("champion") == 1


def everybody_sees_what_was_decided(project: Project) -> None:
    rows = [line.split() for line in project.type("diptych", "status").splitlines()]
    (row,) = [row for row in rows if CNN in row]
    assert (row[1:4], row[-1]) == (["1", "–", "2"], "agrees")
    log = json.loads(project.type("diptych", "history", "cnn", "--json"))
    assert [(entry["action"], entry["version"]) for entry in log] == [
        ("promoted", 1),
        ("promoted", 2),
        ("refused", 2),
        ("refused", 1),
        ("rolled back", 1),
    ]
    assert [entry["when"] for entry in log] == sorted(entry["when"] for entry in log)
    assert all("@" in entry["who"] for entry in log)
    assert any("already champion" in reason for reason in log[2]["why"])
    assert any("0 gained" in reason for reason in log[3]["why"])
    assert log[4]["why"] == ["rolled back from version 2"]


def the_pair_is_served(project: Project) -> None:
    """The server's answers, on usual images and on others, are those of the files."""
    project.type("diptych", "promote", "pair")
    pair = project.folder / "models" / "pair"
    description = json.loads((pair / "model.json").read_bytes())
    assert project.champion_sha256(PAIR) == description["weights_sha256"]

    usual = np.load(project.folder / "data" / "processed" / "test" / "images.npy")
    images = np.concatenate([usual, 255 - usual[:3]])
    with served(project) as address:
        answers = ask(address, images)
    assert answers == ServedPair(load_pair(pair)).predict(images).to_dict(orient="records")
    assert {one["decision"] for one in answers} == {"accept", "abstain"}


@contextmanager
def served(project: Project) -> Iterator[str]:
    """Give the address at which `diptych serve` answers while the block runs."""
    command = ["diptych", "serve", "pair", "--port", str(free_port())]
    log = project.folder.parent / "log"
    with (
        log.open("wb") as said,
        subprocess.Popen(
            command,
            cwd=project.folder,
            env=environment_of(project.folder) | project.settings,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        ) as server,
    ):
        assert server.stdout is not None
        try:
            line = server.stdout.readline().strip()  # printed when the server answers
            model, _, address = line.partition(": ")
            assert model == f"{PAIR}@champion, version 1", log.read_text()
            assert address == f"http://{LOOPBACK}:{command[-1]}/invocations"
            yield address
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=120) == 128 + signal.SIGTERM


def the_pair_is_made_again(project: Project, commit: str) -> None:
    """The commands that are printed, followed to the letter, lead to the registered model."""
    champion = project.client.get_model_version_by_alias(PAIR, "champion")
    told = project.type("diptych", "lineage", f"{PAIR}@champion")
    assert f"commit      {commit}, clean" in told
    commands = re.findall(r"^  (.+)$", told, flags=re.MULTILINE)
    assert commands[0].endswith(commit)
    # What is made counts: this execution need not be recorded.
    followed = project.type("bash", "-eu", "-c", "\n".join(commands), DIPTYCH_TRACKING="off")
    for stage in ("train_cnn", "train_vae", "evaluate"):
        assert f"Running stage '{stage}'" in followed
    again = project.folder.parent / f"{PAIR}-1"
    assert read_yaml(again / "params.yaml")["train_cnn"]["learning_rate"] == GOOD
    load_pair(again / "models" / "pair")  # its files are those that it describes
    description = json.loads((again / "models" / "pair" / "model.json").read_bytes())
    for key in ("weights_sha256", "description_sha256"):
        assert description[key] == champion.tags[key]
