"""From a registered model back to commit, params and data, and forth to the same weights."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from diptych.params import ParamsError, read_yaml
from diptych.presets import Change
from diptych.tracking.client import StoreError
from diptych.tracking.lineage import (
    Lineage,
    LineageError,
    caveats,
    changed_params,
    find_lineage,
    lineage_as_json,
    lineage_lines,
    params_of,
    reproducing_commands,
)
from diptych.tracking.provenance import compute_tags
from diptych.tracking.store import DATABASE_FILE, Store, find_store
from tests.stages.conftest import write_images, write_params

if TYPE_CHECKING:
    from mlflow import MlflowClient

ROOT = Path(__file__).parents[2]
WEIGHTS = "ab" * 32
COMMIT = "c" * 40
DATA = "d" * 64
TAGS = {
    "diptych.stage": "train_cnn",
    "diptych.git_dirty": "false",
    "diptych.preset": "custom",
    "diptych.dataset_sha256": DATA,
    "diptych.num_threads": "2",
    "mlflow.source.git.commit": COMMIT,
    "mlflow.parentRunId": "the execution's",
}
PARAMS = "dataset: {name: mnist}\ncompute: {num_threads: 2}\ntrain_cnn: {seed: 7, rate: 1e-3}\n"
PIPELINE = """\
stages:
  train_cnn: {cmd: train --model models/cnn --metrics metrics/cnn.json, outs: [models/cnn]}
"""


def client_of(store: Store) -> "MlflowClient":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of mlflow's own imports
        import mlflow

        return mlflow.MlflowClient(tracking_uri=store.uri)


def register(store: Store, run_id: str, model_id: str, name: str = "diptych-cnn") -> None:
    client = client_of(store)
    client.create_registered_model(name)
    with pytest.MonkeyPatch.context() as patch:
        # The registry of a local store looks for the model in the process's own store.
        patch.setenv("MLFLOW_TRACKING_URI", store.uri)
        version = client.create_model_version(
            name, f"models:/{model_id}", run_id=run_id, model_id=model_id
        )
    client.set_registered_model_alias(name, "champion", version.version)


@dataclass(frozen=True)
class Desk:
    """A project with a store that holds one registered model."""

    folder: Path

    @property
    def store(self) -> Store:
        return find_store(self.folder, {})

    def find(self, model: str = "diptych-cnn") -> Lineage:
        return find_lineage(self.store, model, self.folder / "params.yaml")


Registrar = Callable[..., Desk]


@pytest.fixture
def registered(project: Path) -> Registrar:
    """Records a run with tags and, unless None, a parameter file; registers its model."""

    def make(params: str | None = PARAMS, **tags: str | None) -> Desk:
        desk = Desk(project)
        (project / "dvc.yaml").write_text(PIPELINE)
        client = client_of(desk.store)
        experiment = client.create_experiment("e", (project / "mlartifacts").as_uri())
        chosen = {**TAGS, **{key.replace("__", "."): value for key, value in tags.items()}}
        known = {key: value for key, value in chosen.items() if value is not None}
        run_id = client.create_run(experiment, tags=known).info.run_id
        if params is not None:
            client.log_text(run_id, params, "params.yaml")
        model = client.create_logged_model(
            experiment, "cnn", source_run_id=run_id, tags={"weights_sha256": WEIGHTS}
        )
        client.finalize_logged_model(model.model_id, "READY")
        register(desk.store, run_id, model.model_id)
        return desk

    return make


def test_a_lineage_is_what_the_run_recorded(registered: Registrar) -> None:
    desk = registered()
    found = desk.find("diptych-cnn@champion")
    assert found == desk.find("diptych-cnn") == desk.find("diptych-cnn/1")
    assert (found.model, found.version, found.aliases) == ("diptych-cnn", 1, ("champion",))
    assert (found.family, found.stage) == ("cnn", "train_cnn")
    assert (found.commit, found.is_dirty, found.preset) == (COMMIT, False, "custom")
    assert (found.weights_sha256, found.dataset_sha256) == (WEIGHTS, DATA)
    assert found.execution_run_id == "the execution's"
    assert found.machine == {"threads": "2"}
    assert params_of(found) == PARAMS
    assert found.params == {
        "dataset.name": "mnist",
        "compute.num_threads": 2,
        "train_cnn.seed": 7,
        "train_cnn.rate": 0.001,
    }
    assert caveats(found) == []
    as_json = json.loads(json.dumps(lineage_as_json(found, desk.folder), allow_nan=False))
    assert as_json["commands"] == reproducing_commands(found, desk.folder)
    assert (as_json["params"], as_json["commit"]) == (found.params, COMMIT)


def test_the_short_name_has_the_prefix_of_params(registered: Registrar) -> None:
    desk = registered()
    write_params(desk.folder, {})
    assert desk.find("cnn@champion").model == "diptych-cnn"
    write_params(desk.folder, {"promotion": {"prefix": "other"}})
    with pytest.raises(StoreError, match=r"^other-cnn: .* must be one of: diptych-cnn$"):
        desk.find("cnn")
    (desk.folder / "params.yaml").unlink()
    with pytest.raises(ParamsError):
        desk.find("cnn")
    assert desk.find("diptych-cnn/1").version == 1  # reads no params


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ("nobody", r"^nobody: a registered model must be one of: diptych-cnn$"),
        ("diptych-cnn@best", r"^diptych-cnn@best: the alias must be one of: champion$"),
        ("diptych-cnn/2", r"^diptych-cnn/2: the version must be one of: 1$"),
        ("diptych-cnn/x", r"^'diptych-cnn/x': must be NAME, NAME@ALIAS or NAME/VERSION$"),
        ("", r"^'': must be NAME, NAME@ALIAS or NAME/VERSION$"),
        ("a@b@c", "must be NAME"),
    ],
)
def test_what_is_not_registered_is_one_line_that_names_what_is(
    registered: Registrar, model: str, line: str
) -> None:
    with pytest.raises((StoreError, LineageError), match=line):
        registered().find(model)


def test_a_store_that_is_not_there_or_does_not_answer_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=DATABASE_FILE):
        Desk(tmp_path).find()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    dead = find_store(tmp_path, {"MLFLOW_TRACKING_URI": f"http://me:hunter2@127.0.0.1:{port}"})
    started = time.monotonic()
    with pytest.raises(StoreError, match=str(port)) as caught:
        find_lineage(dead, "diptych-cnn", tmp_path / "params.yaml")
    assert time.monotonic() - started < 15
    assert len(str(caught.value).splitlines()) == 1
    assert "hunter2" not in str(caught.value)


def test_dirty_code_is_said_not_to_be_in_the_commit(registered: Registrar) -> None:
    desk = registered(diptych__git_dirty="true", diptych__code_diff_sha256="e" * 64)
    found = desk.find()
    (caveat,) = caveats(found)
    assert caveat.endswith("the commit alone does not reproduce it")
    assert "e" * 64 in caveat
    assert f"caveat      {caveat}" in lineage_lines(found, desk.folder)


def test_without_a_commit_or_params_there_are_no_commands(registered: Registrar) -> None:
    desk = registered(params=None, mlflow__source__git__commit=None, diptych__git_dirty=None)
    found = desk.find()
    assert reproducing_commands(found, desk.folder) == []
    assert len(caveats(found)) == 2
    with pytest.raises(LineageError, match=r"must keep params.yaml \(got none\)"):
        params_of(found)
    assert reproducing_commands(replace(found, commit=COMMIT), desk.folder) == []
    assert reproducing_commands(replace(found, params_text=PARAMS), desk.folder) == []


def test_masked_credentials_and_another_number_of_threads_are_told(registered: Registrar) -> None:
    params = "dataset: {sources: ['https://***@host/x']}\ncompute: {num_threads: auto}\n"
    sources, threads = caveats(registered(params, diptych__num_threads="4096").find())
    assert "credentials in dataset.sources" in sources
    assert "auto stood for 4096" in threads


def test_another_device_and_precision_than_auto_stands_for_here_are_told(
    registered: Registrar,
) -> None:
    params = "compute: {device: auto, precision: auto, num_threads: 2}\n"
    here = compute_tags(
        {f"compute.{name}": "auto" for name in ("device", "precision")} | {"compute.num_threads": 1}
    )
    same = registered(params, **here).find()
    assert caveats(same) == []
    there = {"device": "tpu", "precision": "float8"}
    device, precision = caveats(replace(same, machine={**same.machine, **there}))
    assert (
        f"compute.device: auto stood for tpu there and is {here['diptych.device']} here" in device
    )
    assert "compute.precision: auto stood for float8 there" in precision
    chosen = replace(same, params_text=params.replace("auto", "cpu"), machine=there)
    assert caveats(chosen) == []


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def commit_of(folder: Path, files: dict[str, str]) -> str:
    git(folder, "init", "--quiet")
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        git(folder, "add", name)
    git(folder, "commit", "--quiet", "--message", "a")
    return git(folder, "rev-parse", "HEAD")


def test_params_are_compared_with_their_preset_as_the_commit_has_it(
    registered: Registrar,
) -> None:
    desk = registered()
    commit = commit_of(
        desk.folder,
        {
            "params.yaml": PARAMS.replace("seed: 7", "seed: 0"),
            "presets/default.yaml": "train_cnn: {rate: 0.1}",
            "presets/fast.yaml": "train_cnn: {rate: 0.001}",
        },
    )
    (desk.folder / "params.yaml").write_text("changed: {since: true}")
    found = replace(desk.find(), commit=commit)
    seed = Change("train_cnn.seed", 0, 7)
    assert changed_params(replace(found, preset="fast"), desk.folder) == [seed]
    rate = Change("train_cnn.rate", 0.1, 0.001)
    assert changed_params(found, desk.folder) == [seed, rate]
    assert "params      train_cnn.rate: 0.001 (default: 0.1)" in lineage_lines(found, desk.folder)
    assert changed_params(replace(found, commit=COMMIT), desk.folder) is None
    assert changed_params(replace(found, params_text=None), desk.folder) is None


# What the commands of a lineage need of an installation: `make setup` would bring gigabytes.
PROGRAMS = {
    "make": '[ "$*" = setup ] && mkdir -p .venv/bin && touch .venv/bin/activate',
    "diptych": "exec python -c 'from diptych.cli import main; main()' \"$@\"",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """A copy of this project's code under git, with a small classifier trained and registered."""
    home = tmp_path_factory.mktemp("lineage")
    folder = home / "project"
    for name in ("src", "stages", "presets"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.tmp")
        )
    for name in (".gitignore", ".dvcignore", ".dvc/config", "data/.gitignore"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    stages = read_yaml(ROOT / "dvc.yaml")["stages"]
    (folder / "dvc.yaml").write_text(json.dumps({"stages": {"train_cnn": stages["train_cnn"]}}))
    write_params(folder, {})
    write_images(folder, (1, 12, 12))  # in git, as nothing makes them
    git(folder, "init", "--quiet")
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "--message", "Start")
    write_params(folder, {"train_cnn": {"seed": 7, "learning_rate": 1e-5}})
    shutil.copy(empty_database, folder / DATABASE_FILE)
    programs = home / "bin"
    programs.mkdir()
    for name, text in PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    return folder


def in_bash(folder: Path, script: str) -> "subprocess.CompletedProcess[str]":
    steering = ("GIT_", "DVC_", "MLFLOW_", "DIPTYCH_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(steering)}
    home = folder.parent
    programs = [str(home / "bin"), str(Path(sys.executable).parent), kept["PATH"]]
    environment = {
        **kept,
        **{f"DVC_{kind}_DIR": str(home / kind) for kind in ("SITE_CACHE", "GLOBAL_CONFIG")},
        "PATH": os.pathsep.join(programs),
        "PYTHONPATH": "src",  # that of the folder in which a command runs
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        ["bash", "-eu", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_what_is_unknown_ends_the_command_with_one_line_and_2(trained: Path) -> None:
    done = in_bash(trained, "diptych lineage nobody@champion")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
