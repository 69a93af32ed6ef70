"""Several seeds, as real DVC experiments of a pipeline whose stages only pretend to train."""

import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diptych.tracking.seeds import Spread, spread_rows, spreads
from diptych.tracking.store import DATABASE_FILE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ROOT = Path(__file__).parents[2]
PIPELINE = """\
stages:
  preprocess:
    cmd: python stage.py preprocess
    deps: [stage.py]
    outs: [processed]
  train_cnn:
    cmd: python stage.py train_cnn
    deps: [processed]
    params: [train_cnn, pause_seconds]
    outs: [model]
  evaluate:
    cmd: python stage.py evaluate --metrics metrics/evaluate.json
    deps: [model]
    metrics: [metrics/evaluate.json: {cache: false}]
"""
PARAMS = "train_cnn: {seed: 0}\ntrain_vae: {seed: 0}\npause_seconds: 0\n"
STAGE = """\
import json, pathlib, sys, time
from diptych.params import read_yaml
from diptych.tracking.runs import stage_run

stage = sys.argv[1]
params = read_yaml(pathlib.Path("params.yaml"))
with stage_run(stage, pathlib.Path("params.yaml"), [stage]):
    if stage == "preprocess":
        pathlib.Path("processed").write_text("data")
    elif stage == "train_cnn":
        seed = params["train_cnn"]["seed"]
        if seed == 3:
            print("training", flush=True)
            time.sleep(params["pause_seconds"])
        pathlib.Path("model").write_text(str(seed + params["train_vae"]["seed"]))
    else:
        weight = int(pathlib.Path("model").read_text())
        figures = {"cnn": {"accuracy": weight / 8, "classes": [1, 2]}, "num_images": 5, "name": "x"}
        pathlib.Path("metrics").mkdir(exist_ok=True)
        pathlib.Path("metrics/evaluate.json").write_text(json.dumps(figures))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """A project under git and DVC, with a store. The tests use it one after the other."""
    folder = tmp_path_factory.mktemp("seeds") / "project"
    folder.mkdir()
    for name, text in {
        "dvc.yaml": PIPELINE,
        "params.yaml": PARAMS,
        "stage.py": STAGE,
        ".gitignore": "/mlflow.db*\n/mlartifacts\n/.diptych\n/processed\n/model\n__pycache__\n",
    }.items():
        (folder / name).write_text(text)
    shutil.copy(empty_database, folder / DATABASE_FILE)
    for command in ("git init --quiet", "dvc init --quiet", "git add --all"):
        run(folder, *command.split())
    run(folder, "git", "commit", "--quiet", "--message", "The project")
    return folder


def environment_of(folder: Path) -> dict[str, str]:
    steering = ("GIT_", "DVC_", "MLFLOW_", "DIPTYCH_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(steering)}
    people = [f"GIT_{role}" for role in ("AUTHOR", "COMMITTER")]
    return {
        **kept,
        **{f"{one}_NAME": "Tester" for one in people},
        **{f"{one}_EMAIL": "tester@localhost" for one in people},
        **{f"DVC_{one}_DIR": str(folder.parent / one) for one in ("SITE_CACHE", "GLOBAL_CONFIG")},
        "DVC_NO_ANALYTICS": "true",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
    }


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment_of(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def seeds(folder: Path, *options: str) -> "subprocess.Popen[str]":
    program = "from diptych.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program, "seeds", *options],
        cwd=folder,
        env=environment_of(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell starts in the background ignores Ctrl-C, and its children too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def client_of(folder: Path) -> "MlflowClient":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of mlflow's own imports
        import mlflow

        return mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder / DATABASE_FILE}")


def groups_in(folder: Path) -> "dict[str, list[Run]]":
    """The runs of whole executions, by the run above them; first that run itself."""
    experiment = client_of(folder).get_experiment_by_name("diptych")
    assert experiment is not None
    runs = client_of(folder).search_runs([experiment.experiment_id])
    groups: dict[str, list[Run]] = {}
    for one in sorted(runs, key=lambda run: run.info.start_time):
        if group := one.data.tags.get("diptych.group"):
            groups.setdefault(group, []).append(one)
    return groups


def test_seeds_are_experiments_under_one_run_with_their_mean_and_deviation(
    home: Path, wait_until_recorded: Callable[[Path], None]
) -> None:
    output, errors = (process := seeds(home, "--num", "2")).communicate(timeout=300)
    assert process.returncode == 0, errors
    wait_until_recorded(home)
    assert run(home, "git", "status", "--porcelain") == ""
    assert not {"processed", "model", "metrics", "dvc.lock"} & {
        path.name for path in home.iterdir()
    }

    # Seeds 1 and 2 make weights of 2 and 4: accuracies of 1/4 and 1/2.
    row = [line.split() for line in output.splitlines() if "accuracy" in line]
    assert row == [["cnn.accuracy", "0.375", "0.18", "2"]]
    assert "num_images" not in output
    ((group, *members),) = groups_in(home).values()
    assert group.info.status == "FINISHED"
    assert group.data.metrics == pytest.approx(
        {
            "cnn.accuracy.mean": 0.375,
            "cnn.accuracy.sd": statistics.stdev([0.25, 0.5]),
            "num_images.mean": 5,
            "num_images.sd": 0,
            "num_seeds": 2,
        }
    )
    assert group.data.params["seeds"] == "[1, 2]"
    assert not {"train_cnn.seed", "train_vae.seed"} & group.data.params.keys()
    assert [one.data.params["train_cnn.seed"] for one in members] == ["1", "2"]
    assert [one.data.params["train_vae.seed"] for one in members] == ["1", "2"]
    assert {one.data.tags["mlflow.parentRunId"] for one in members} == {group.info.run_id}
    assert errors.count("Running stage 'train_cnn'") == 2
    assert errors.count("Running stage 'preprocess'") == 1


def test_ctrl_c_ends_training_and_leaves_a_killed_run_with_what_is_done(
    home: Path, wait_until_recorded: Callable[[Path], None]
) -> None:
    known = set(groups_in(home))
    (home / "params.yaml").write_text(PARAMS.replace("pause_seconds: 0", "pause_seconds: 100"))
    process = seeds(home, "--num", "9", "--first-seed", "2")
    assert process.stderr is not None
    for line in process.stderr:
        if line == "training\n":
            break
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert time.monotonic() - started < 30
    assert process.returncode == 130
    assert str(ROOT / "src") not in errors  # no traceback but the stage's own
    wait_until_recorded(home)
    assert run(home, "git", "status", "--porcelain") == " M params.yaml\n"
    (found,) = set(groups_in(home)) - known
    group, second, third = groups_in(home)[found]
    assert group.info.status == third.info.status == "KILLED"
    assert second.info.status == "FINISHED"
    assert group.data.metrics["num_seeds"] == 1
    assert group.data.metrics["cnn.accuracy.mean"] == 0.5
    assert "cnn.accuracy.sd" not in group.data.metrics


def test_a_failing_experiment_is_one_line_behind_what_dvc_says(home: Path) -> None:
    (home / "params.yaml").write_text(PARAMS.replace("train_vae", "vae"))
    _, errors = (process := seeds(home, "--num", "1", "--first-seed", "3")).communicate(timeout=300)
    assert process.returncode == 2
    *_, line = errors.splitlines()
    (failed,) = [runs for runs in groups_in(home).values() if len(runs) == 1]
    assert failed[0].info.status == "FAILED"
    (home / "params.yaml").write_text(PARAMS)
    assert line == "-c: seed 3: `dvc exp run` must succeed (got exit code 255)"


@given(st.lists(st.floats(-1e6, 1e6), min_size=2))
def test_a_spread_is_mean_and_sample_deviation(values: list[float]) -> None:
    found = spreads([{"a": value, f"b{number}": 0.0} for number, value in enumerate(values)])
    assert found == {"a": Spread(statistics.fmean(values), statistics.stdev(values), len(values))}


def test_a_single_run_has_no_deviation() -> None:
    assert spreads([]) == {}
    assert spreads([{"a": 0.5}]) == {"a": Spread(0.5, None, 1)}
    assert spread_rows(spreads([{"a": 0.5}])) == [("a", "0.5", "", "1")]


def test_what_does_not_depend_on_the_seed_is_not_shown() -> None:
    assert spread_rows(spreads([{"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 3.0}])) == [
        ("b", "2.5", "0.71", "2")
    ]
