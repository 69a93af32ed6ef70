"""From a registered model back to commit, params and data, and forth to the commands."""

import json
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

from diptych.cli import main
from diptych.params import ParamsError
from diptych.presets import Change
from diptych.tracking.client import StoreError
from diptych.tracking.lineage import Lineage, LineageError, find_lineage, params_of
from diptych.tracking.lineage_reports import lineage_as_json, lineage_lines
from diptych.tracking.provenance import compute_tags
from diptych.tracking.reproducing import caveats, changed_params, reproducing_commands
from diptych.tracking.store import DATABASE_FILE, Store, find_store
from tests.stages.conftest import write_params

if TYPE_CHECKING:
    from mlflow import MlflowClient

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
FILES = {
    "dvc.yaml": PIPELINE,
    "params.yaml": PARAMS.replace("seed: 7", "seed: 0"),
    "presets/default.yaml": "train_cnn: {rate: 0.1}",
    "presets/fast.yaml": "train_cnn: {rate: 0.001}",
}


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


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def commit_of(folder: Path, **changes: str | None) -> str:
    """Commit the project's files, changed or, for None, left out; return the commit."""
    git(folder, "init", "--quiet")
    changed = {key.replace("__", "/") + ".yaml": text for key, text in changes.items()}
    for name, text in {**FILES, **changed}.items():
        if text is not None:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
            git(folder, "add", name)
    git(folder, "commit", "--quiet", "--message", "a")
    return git(folder, "rev-parse", "HEAD")


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
    commit = commit_of(desk.folder)
    here = replace(found, commit=commit)
    assert caveats(here, desk.folder) == []
    as_json = json.loads(json.dumps(lineage_as_json(here, desk.folder), allow_nan=False))
    assert as_json["commands"] == reproducing_commands(here, desk.folder)
    assert as_json["commands"][-1] == f"grep {WEIGHTS} models/cnn/model.json"
    assert (as_json["params"], as_json["commit"]) == (found.params, commit)


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
    found = replace(desk.find(), commit=commit_of(desk.folder))
    (caveat,) = caveats(found, desk.folder)
    assert caveat.endswith("the commit alone does not reproduce it")
    assert "e" * 64 in caveat
    assert f"caveat      {caveat}" in lineage_lines(found, desk.folder)


def test_without_a_commit_or_params_there_are_no_commands(registered: Registrar) -> None:
    desk = registered(params=None, mlflow__source__git__commit=None, diptych__git_dirty=None)
    found = desk.find()
    assert reproducing_commands(found, desk.folder) == []
    assert len(caveats(found, desk.folder)) == 2
    with pytest.raises(LineageError, match=r"must keep params.yaml \(got none\)"):
        params_of(found)
    commit = commit_of(desk.folder)
    assert reproducing_commands(replace(found, commit=commit), desk.folder) == []
    assert reproducing_commands(replace(found, params_text=PARAMS), desk.folder) == []
    complete = replace(found, commit=commit, params_text=PARAMS)
    assert reproducing_commands(complete, desk.folder) != []


def test_masked_credentials_and_another_number_of_threads_are_told(registered: Registrar) -> None:
    params = "dataset: {sources: ['https://***@host/x']}\ncompute: {num_threads: auto}\n"
    desk = registered(params, diptych__num_threads="4096")
    found = replace(desk.find(), commit=commit_of(desk.folder))
    sources, threads = caveats(found, desk.folder)
    assert "credentials in dataset.sources" in sources
    assert "auto stood for 4096" in threads


def test_another_device_and_precision_than_auto_stands_for_here_are_told(
    registered: Registrar,
) -> None:
    params = "compute: {device: auto, precision: auto, num_threads: 2}\n"
    here = compute_tags(
        {f"compute.{name}": "auto" for name in ("device", "precision")} | {"compute.num_threads": 1}
    )
    desk = registered(params, **here)
    same = replace(desk.find(), commit=commit_of(desk.folder))
    assert caveats(same, desk.folder) == []
    there = {"device": "tpu", "precision": "float8"}
    elsewhere = replace(same, machine={**same.machine, **there})
    device, precision = caveats(elsewhere, desk.folder)
    assert (
        f"compute.device: auto stood for tpu there and is {here['diptych.device']} here" in device
    )
    assert "compute.precision: auto stood for float8 there" in precision
    chosen = replace(same, params_text=params.replace("auto", "cpu"), machine=there)
    assert caveats(chosen, desk.folder) == []


def test_params_are_compared_with_their_preset_as_the_commit_has_it(
    registered: Registrar,
) -> None:
    desk = registered()
    commit = commit_of(desk.folder)
    (desk.folder / "params.yaml").write_text("changed: {since: true}")
    found = replace(desk.find(), commit=commit)
    seed = Change("train_cnn.seed", 0, 7)
    assert changed_params(replace(found, preset="fast"), desk.folder) == [seed]
    rate = Change("train_cnn.rate", 0.1, 0.001)
    assert changed_params(found, desk.folder) == [seed, rate]
    assert "params      train_cnn.rate: 0.001 (default: 0.1)" in lineage_lines(found, desk.folder)
    assert changed_params(replace(found, params_text=None), desk.folder) is None


def test_the_commands_look_where_the_commit_has_the_model_not_the_checkout(
    registered: Registrar,
) -> None:
    desk = registered()
    found = replace(desk.find(), commit=commit_of(desk.folder), description_sha256="e" * 64)
    (desk.folder / "dvc.yaml").write_text(PIPELINE.replace("models/cnn", "elsewhere/cnn"))
    commands = reproducing_commands(found, desk.folder)
    assert commands == [
        f"git worktree add --detach ../diptych-cnn-1 {found.commit}",
        "diptych lineage diptych-cnn/1 --print-params > ../diptych-cnn-1/params.yaml",
        "cd ../diptych-cnn-1",
        "make setup",
        "source .venv/bin/activate",
        "dvc repro train_cnn",
        f"grep {'e' * 64} models/cnn/model.json",
        f"grep {WEIGHTS} models/cnn/model.json",
    ]
    (desk.folder / "dvc.yaml").unlink()
    assert reproducing_commands(found, desk.folder) == commands


@pytest.mark.parametrize("commit", [COMMIT, "--output=made", "HEAD"])
def test_a_commit_that_git_lacks_is_told_and_nothing_is_asked_of_it(
    registered: Registrar, commit: str
) -> None:
    desk = registered()
    commit_of(desk.folder)
    found = replace(desk.find(), commit=commit)
    (caveat,) = caveats(found, desk.folder)
    assert f"git here does not have commit {commit}" in caveat
    assert f"caveat      {caveat}" in lineage_lines(found, desk.folder)
    assert lineage_as_json(found, desk.folder)["caveats"] == [caveat]
    assert changed_params(found, desk.folder) is None
    assert reproducing_commands(found, desk.folder) == []
    assert not (desk.folder / "made").exists()


def test_a_commit_without_the_preset_is_told(registered: Registrar) -> None:
    desk = registered(diptych__preset="fast")
    found = replace(desk.find(), commit=commit_of(desk.folder, presets__fast=None))
    assert caveats(found, desk.folder) == [
        "the commit does not have all of params.yaml, presets/default.yaml, presets/fast.yaml: "
        "which parameters differ is not known"
    ]
    assert changed_params(found, desk.folder) is None


@pytest.mark.parametrize("pipeline", [None, PIPELINE.replace("[models/cnn]", "[models/other]")])
def test_a_commit_that_does_not_say_where_the_model_is_is_told(
    registered: Registrar, pipeline: str | None
) -> None:
    desk = registered()
    found = replace(desk.find(), commit=commit_of(desk.folder, dvc=pipeline))
    (caveat,) = caveats(found, desk.folder)
    assert caveat.startswith("dvc.yaml of the commit has no stage train_cnn with an output cnn: ")
    lines = lineage_lines(found, desk.folder)
    assert "To make it again:" in lines
    assert lines[-1] == "  dvc repro train_cnn"


def end_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """Run the command as a process would and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["diptych", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


def test_the_command_prints_the_parameter_file_alone(
    registered: Registrar, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = registered()
    monkeypatch.chdir(desk.folder)
    assert end_of(monkeypatch, "lineage", "diptych-cnn", "--print-params") == 0
    assert capsys.readouterr().out == PARAMS


def test_the_command_takes_another_parameter_file(
    registered: Registrar,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From another folder: store, prefix and git are those of the file's project."""
    project = tmp_path / "project"
    desk = registered(mlflow__source__git__commit=commit_of(project))
    write_params(desk.folder, {})
    params = str(desk.folder / "params.yaml")
    assert end_of(monkeypatch, "lineage", "cnn", "--params", params, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["model"], told["version"]) == ("diptych-cnn", 1)
    assert told["caveats"] == []
    assert len(told["commands"]) == 7


def test_what_is_unknown_ends_the_command_with_one_line_and_2(
    registered: Registrar, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(registered().folder)
    assert end_of(monkeypatch, "lineage", "nobody@champion") == 2
    told = capsys.readouterr()
    assert (told.out, len(told.err.splitlines())) == ("", 1)
    assert "nobody: a registered model must be one of: diptych-cnn" in told.err
