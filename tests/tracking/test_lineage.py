"""From a registered model back to commit, params and data, and forth to the commands."""

import json
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
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
class Project:
    """A project with a store that holds one registered model."""

    folder: Path

    @property
    def store(self) -> Store:
        return find_store(self.folder, {})

    def find(self, model: str = "diptych-cnn") -> Lineage:
        return find_lineage(self.store, model, self.folder / "params.yaml")


Maker = Callable[..., Project]
"""Makes the project from a parameter file, digests, and tags of the run (`__` for a dot)."""


@pytest.fixture
def registered(project: Path, tmp_path: Path) -> Maker:
    """Records a run with tags and, unless None, a parameter file; registers its model."""

    def make(
        params: str | bytes | None = PARAMS,
        digests: Mapping[str, str] = {"weights_sha256": WEIGHTS},
        **tags: str | None,
    ) -> Project:
        made = Project(project)
        client = client_of(made.store)
        experiment = client.create_experiment("e", (project / "mlartifacts").as_uri())
        chosen = {**TAGS, **{key.replace("__", "."): value for key, value in tags.items()}}
        known = {key: value for key, value in chosen.items() if value is not None}
        run_id = client.create_run(experiment, tags=known).info.run_id
        if params is not None:
            file = tmp_path / "params.yaml"
            file.write_bytes(params.encode() if isinstance(params, str) else params)
            client.log_artifact(run_id, str(file))
        model = client.create_logged_model(
            experiment, "cnn", source_run_id=run_id, tags=dict(digests)
        )
        client.finalize_logged_model(model.model_id, "READY")
        register(made.store, run_id, model.model_id)
        return made

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


def test_a_lineage_is_what_the_run_recorded(registered: Maker) -> None:
    project = registered()
    found = project.find("diptych-cnn@champion")
    assert found == project.find("diptych-cnn") == project.find("diptych-cnn/1")
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
    commit = commit_of(project.folder)
    here = replace(found, commit=commit)
    assert caveats(here, project.folder) == []
    as_json = json.loads(json.dumps(lineage_as_json(here, project.folder), allow_nan=False))
    assert as_json["commands"] == reproducing_commands(here, project.folder)
    assert as_json["commands"][-1] == f"grep {WEIGHTS} models/cnn/model.json"
    assert (as_json["params"], as_json["commit"]) == (found.params, commit)


def test_the_short_name_has_the_prefix_of_params(registered: Maker) -> None:
    project = registered()
    write_params(project.folder, {})
    assert project.find("cnn@champion").model == "diptych-cnn"
    write_params(project.folder, {"promotion": {"prefix": "other"}})
    with pytest.raises(StoreError, match=r"^other-cnn: .* must be one of: diptych-cnn$"):
        project.find("cnn")
    (project.folder / "params.yaml").unlink()
    with pytest.raises(ParamsError):
        project.find("cnn")
    assert project.find("diptych-cnn/1").version == 1  # reads no params


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
    registered: Maker, model: str, line: str
) -> None:
    with pytest.raises((StoreError, LineageError), match=line):
        registered().find(model)


def test_a_store_that_is_not_there_or_does_not_answer_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=DATABASE_FILE):
        Project(tmp_path).find()
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


def test_dirty_code_is_said_not_to_be_in_the_commit(registered: Maker) -> None:
    project = registered(diptych__git_dirty="true", diptych__code_diff_sha256="e" * 64)
    found = replace(project.find(), commit=commit_of(project.folder))
    (caveat,) = caveats(found, project.folder)
    assert caveat.endswith("the commit alone does not reproduce it")
    assert "e" * 64 in caveat
    assert f"caveat      {caveat}" in lineage_lines(found, project.folder)


def test_without_a_commit_or_params_there_are_no_commands(registered: Maker) -> None:
    project = registered(params=None, mlflow__source__git__commit=None, diptych__git_dirty=None)
    found = project.find()
    assert reproducing_commands(found, project.folder) == []
    assert len(caveats(found, project.folder)) == 2
    with pytest.raises(LineageError, match=r"must keep params.yaml \(got none\)"):
        params_of(found)
    commit = commit_of(project.folder)
    assert reproducing_commands(replace(found, commit=commit), project.folder) == []
    assert reproducing_commands(replace(found, params_text=PARAMS), project.folder) == []
    complete = replace(found, commit=commit, params_text=PARAMS)
    assert reproducing_commands(complete, project.folder) != []


def test_masked_credentials_and_another_number_of_threads_are_told(registered: Maker) -> None:
    params = "dataset: {sources: ['https://***@host/x']}\ncompute: {num_threads: auto}\n"
    project = registered(params, diptych__num_threads="4096")
    found = replace(project.find(), commit=commit_of(project.folder))
    sources, threads = caveats(found, project.folder)
    assert "credentials in dataset.sources" in sources
    assert "auto stood for 4096" in threads


def test_another_device_and_precision_than_auto_stands_for_here_are_told(
    registered: Maker,
) -> None:
    params = "compute: {device: auto, precision: auto, num_threads: 2}\n"
    here = compute_tags(
        {f"compute.{name}": "auto" for name in ("device", "precision")} | {"compute.num_threads": 1}
    )
    project = registered(params, **here)
    same = replace(project.find(), commit=commit_of(project.folder))
    assert caveats(same, project.folder) == []
    there = {"device": "tpu", "precision": "float8"}
    elsewhere = replace(same, machine={**same.machine, **there})
    device, precision = caveats(elsewhere, project.folder)
    assert (
        f"compute.device: auto stood for tpu there and is {here['diptych.device']} here" in device
    )
    assert "compute.precision: auto stood for float8 there" in precision
    chosen = replace(same, params_text=params.replace("auto", "cpu"), machine=there)
    assert caveats(chosen, project.folder) == []


def test_params_are_compared_with_their_preset_as_the_commit_has_it(
    registered: Maker,
) -> None:
    project = registered()
    commit = commit_of(project.folder)
    (project.folder / "params.yaml").write_text("changed: {since: true}")
    found = replace(project.find(), commit=commit)
    seed = Change("train_cnn.seed", 0, 7)
    assert changed_params(replace(found, preset="fast"), project.folder) == [seed]
    rate = Change("train_cnn.rate", 0.1, 0.001)
    assert changed_params(found, project.folder) == [seed, rate]
    assert "params      train_cnn.rate: 0.001 (default: 0.1)" in lineage_lines(
        found, project.folder
    )
    assert changed_params(replace(found, params_text=None), project.folder) is None


def test_the_commands_look_where_the_commit_has_the_model_not_the_checkout(
    registered: Maker,
) -> None:
    project = registered()
    found = replace(project.find(), commit=commit_of(project.folder), description_sha256="e" * 64)
    (project.folder / "dvc.yaml").write_text(PIPELINE.replace("models/cnn", "elsewhere/cnn"))
    commands = reproducing_commands(found, project.folder)
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
    (project.folder / "dvc.yaml").unlink()
    assert reproducing_commands(found, project.folder) == commands


@pytest.mark.parametrize("commit", [COMMIT, "--output=made", "HEAD"])
def test_a_commit_that_git_lacks_is_told_and_nothing_is_asked_of_it(
    registered: Maker, commit: str
) -> None:
    project = registered()
    commit_of(project.folder)
    found = replace(project.find(), commit=commit)
    (caveat,) = caveats(found, project.folder)
    assert f"git here does not have commit {commit}" in caveat
    assert f"caveat      {caveat}" in lineage_lines(found, project.folder)
    assert lineage_as_json(found, project.folder)["caveats"] == [caveat]
    assert changed_params(found, project.folder) is None
    assert reproducing_commands(found, project.folder) == []
    assert not (project.folder / "made").exists()


def test_a_commit_without_the_preset_is_told(registered: Maker) -> None:
    project = registered(diptych__preset="fast")
    found = replace(project.find(), commit=commit_of(project.folder, presets__fast=None))
    assert caveats(found, project.folder) == [
        "the commit does not have all of params.yaml, presets/default.yaml, presets/fast.yaml: "
        "which parameters differ is not known"
    ]
    assert changed_params(found, project.folder) is None


@pytest.mark.parametrize("pipeline", [None, PIPELINE.replace("[models/cnn]", "[models/other]")])
def test_a_commit_that_does_not_say_where_the_model_is_is_told(
    registered: Maker, pipeline: str | None
) -> None:
    project = registered()
    found = replace(project.find(), commit=commit_of(project.folder, dvc=pipeline))
    (caveat,) = caveats(found, project.folder)
    assert caveat.startswith("dvc.yaml of the commit has no stage train_cnn with an output cnn: ")
    lines = lineage_lines(found, project.folder)
    assert "To make it again:" in lines
    assert lines[-1] == "  dvc repro train_cnn"


def end_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """Run the command as a process would and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["diptych", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


def test_the_command_prints_the_parameter_file_alone(
    registered: Maker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = registered()
    monkeypatch.chdir(project.folder)
    assert end_of(monkeypatch, "lineage", "diptych-cnn", "--print-params") == 0
    assert capsys.readouterr().out == PARAMS


def test_the_command_takes_another_parameter_file(
    registered: Maker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From another folder: store, prefix and git are those of the file's project."""
    commit = commit_of(tmp_path / "project")
    project = registered(mlflow__source__git__commit=commit)
    write_params(project.folder, {})
    params = str(project.folder / "params.yaml")
    assert end_of(monkeypatch, "lineage", "cnn", "--params", params, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["model"], told["version"]) == ("diptych-cnn", 1)
    assert told["caveats"] == []
    assert len(told["commands"]) == 7


def test_what_is_unknown_ends_the_command_with_one_line_and_2(
    registered: Maker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(registered().folder)
    assert end_of(monkeypatch, "lineage", "nobody@champion") == 2
    told = capsys.readouterr()
    assert (told.out, len(told.err.splitlines())) == ("", 1)
    assert "nobody: a registered model must be one of: diptych-cnn" in told.err


def test_nothing_that_a_terminal_obeys_is_printed(
    registered: Maker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whoever may write to the store may write anything into a tag, or into a parameter file."""
    orders = "\x1b[2J\x9b2J\r\ncommit      forged\n\x85\u202e"
    commit = commit_of(tmp_path / "project")
    project = registered(
        'train_cnn: {"\\e[2J\\n": "\\e[2J\\n\\ud800"}',
        dict.fromkeys(("weights_sha256", "description_sha256"), orders),
        mlflow__source__git__commit=commit,
        diptych__dataset_sha256=orders,
        dvc__experiment=orders,
        diptych__cpu=orders,
        diptych__stage=f"train_cnn{orders}",
        diptych__git_dirty="true",
        diptych__code_diff_sha256=orders,
        mlflow__parentRunId=orders,
    )
    monkeypatch.chdir(project.folder)
    assert end_of(monkeypatch, "lineage", "diptych-cnn") == 0
    lines = capsys.readouterr().out.split("\n")  # splitlines() takes some for line ends
    assert [line for line in lines if not line.isprintable()] == []
    assert [line for line in lines if line.startswith("commit ")] == [
        f"commit      {commit}, with changes"
    ]
    assert r"experiment  \x1b[2J\x9b2J\r\ncommit      forged\n\x85\u202e" in lines
    assert end_of(monkeypatch, "lineage", "diptych-cnn", "--json") == 0
    text = capsys.readouterr().out
    assert [line for line in text.split("\n") if not line.isprintable()] == []
    told = json.loads(text)
    assert (told["experiment"], told["machine"]["CPU"]) == (orders, orders)
    assert told["params"] == {"train_cnn.\x1b[2J\n": "\x1b[2J\n\ud800"}


def test_a_parameter_that_is_no_value_of_json_is_text(
    registered: Maker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = registered("a: {day: 2026-01-31, limit: .inf, both: [.nan, 2026-01-31], num: 1}")
    monkeypatch.chdir(project.folder)
    assert end_of(monkeypatch, "lineage", "diptych-cnn", "--json") == 0
    params = json.loads(capsys.readouterr().out)["params"]
    assert (params["a.day"], params["a.limit"], params["a.num"]) == ("2026-01-31", "inf", 1)
    assert params["a.both"].startswith("[nan, ")


@pytest.mark.parametrize(
    ("params", "fault"),
    [
        (b"a: {b: \xff}", "must be UTF-8 text (invalid start byte)"),
        ("a: {b: 1", "line 1: is not valid YAML ("),
        ("a: \x1b[2J", "is not valid YAML ("),
        ("- 1", "must hold sections (got [1])"),
        ("", "must hold sections (got None)"),
    ],
)
def test_a_parameter_file_that_nobody_can_read_is_a_caveat(
    registered: Maker,
    params: str | bytes,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    project = registered(params)
    run_id = project.find().run_id
    told = f"run {run_id}: params.yaml: {fault}"
    monkeypatch.chdir(project.folder)
    assert end_of(monkeypatch, "lineage", "diptych-cnn") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith(f"caveat      {told}")]) == 1
    assert f"weights     {WEIGHTS}" in lines
    assert end_of(monkeypatch, "lineage", "diptych-cnn", "--json") == 0
    as_json = json.loads(capsys.readouterr().out)
    assert (as_json["params"], as_json["commands"]) == ({}, [])
    assert end_of(monkeypatch, "lineage", "diptych-cnn", "--print-params") == 2
    printed = capsys.readouterr()
    assert (printed.out, len(printed.err.splitlines())) == ("", 1)
    assert told in printed.err


@pytest.mark.parametrize("found", ["ab" * 31, "AB" * 32, "-e", "x; touch made", f"{WEIGHTS}\n", ""])
def test_a_weights_digest_that_is_none_is_told_and_in_no_command(
    registered: Maker, found: str
) -> None:
    project = registered(digests={"weights_sha256": found})
    here = replace(project.find(), commit=commit_of(project.folder))
    assert caveats(here, project.folder) == [
        f"weights: the recorded sha256 must be 64 hexadecimal digits (got {found!r})"
    ]
    assert reproducing_commands(here, project.folder)[-1] == "dvc repro train_cnn"


def test_other_digests_that_are_none_are_told_as_well(registered: Maker) -> None:
    digests = {"weights_sha256": WEIGHTS, "description_sha256": "--file=x"}
    project = registered(digests=digests, diptych__dataset_sha256="unknown")
    here = replace(project.find(), commit=commit_of(project.folder))
    described, data = caveats(here, project.folder)
    assert described.startswith("description: ")
    assert described.endswith("(got '--file=x')")
    assert data.startswith("data: ")
    assert data.endswith("(got 'unknown')")
    greps = [one for one in reproducing_commands(here, project.folder) if one.startswith("grep")]
    assert greps == [f"grep {WEIGHTS} models/cnn/model.json"]


@pytest.mark.parametrize("stage", ["--glob", "a b", "x;touch made", "x\n", None])
def test_what_is_no_stages_name_is_in_no_command(registered: Maker, stage: str | None) -> None:
    project = registered(diptych__stage=stage)
    here = replace(project.find(), commit=commit_of(project.folder))
    assert reproducing_commands(here, project.folder)[-1] == "dvc repro"
    (caveat,) = caveats(here, project.folder)
    assert caveat.startswith(f"dvc.yaml of the commit has no stage {stage or 'that is known'} with")


def test_a_preset_of_no_possible_name_is_one_that_the_commit_lacks(registered: Maker) -> None:
    project = registered(diptych__preset="fast\0")
    here = replace(project.find(), commit=commit_of(project.folder))
    (caveat,) = caveats(here, project.folder)
    assert caveat.startswith("the commit does not have all of params.yaml, presets/default.yaml")
