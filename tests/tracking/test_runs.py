import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from diptych.tracking.runs import TrackingError, stage_run
from diptych.tracking.tracker import NullTracker

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def client_of(project: Path) -> "MlflowClient":
    import mlflow

    return mlflow.MlflowClient(tracking_uri=f"sqlite:///{project / 'mlflow.db'}")


def runs_in(project: Path, experiment: str = "diptych") -> "dict[str, Run]":
    client = client_of(project)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    by_name = {str(run.info.run_name): run for run in runs}
    assert len(by_name) == len(runs)
    return by_name


def test_a_stage_without_a_pipeline_stands_alone(project: Path) -> None:
    with stage_run("train_cnn", project / "params.yaml", ["train_cnn", "dataset.name"]):
        pass
    (run,) = runs_in(project).values()
    assert run.info.run_name == "train_cnn"
    assert run.info.status == "FINISHED"
    assert run.data.params == {
        "dataset.name": "mnist",
        "train_cnn.architecture": "article",
        "train_cnn.learning_rate": "0.001",
        "train_cnn.augment": "true",
    }
    assert "mlflow.parentRunId" not in run.data.tags
    assert run.info.artifact_uri.startswith(f"file://{project}/mlartifacts/diptych/")


def test_tags_say_where_a_run_comes_from(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(project), *identity, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init")
    (project / "dvc.lock").write_text("a")
    (project / "dvc.yaml").write_text("stages: {train_cnn: {deps: [dvc.lock]}}")
    git("add", "dvc.lock", "dvc.yaml")
    git("commit", "-m", "first")
    monkeypatch.setenv("DVC_STAGE", "train_cnn")
    monkeypatch.setenv("DVC_EXP_NAME", "dusty-gull")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "abc")

    def tags_of_a_run(name: str) -> dict[str, str]:
        with stage_run(name, project / "params.yaml", []):
            pass
        tags: dict[str, str] = runs_in(project)[name].data.tags
        return tags

    tags = tags_of_a_run("one")
    assert tags["diptych.stage"] == "one"
    assert tags["dvc.stage"] == "train_cnn"
    assert re.fullmatch("[0-9a-f]{64}", tags["diptych.fingerprint"])
    assert tags["dvc.experiment"] == "dusty-gull"
    assert tags["dvc.baseline"] == "abc"
    assert tags["mlflow.source.git.commit"] == git("rev-parse", "HEAD")
    assert float(tags["diptych.seconds"]) >= 0
    assert int(tags["diptych.peak_memory_mib"]) > 1
    assert tags["diptych.version.mlflow"] == "3.17.2"
    assert tags["diptych.git_dirty"] == "false"
    (project / "dvc.lock").write_text("rewritten by DVC")
    assert tags_of_a_run("two")["diptych.git_dirty"] == "false"
    (project / "dvc.yaml").write_text("changed by hand")
    changed = tags_of_a_run("three")
    assert changed["diptych.git_dirty"] == "true"
    assert "diptych.fingerprint" not in changed  # that dvc.yaml describes no stage


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("diverged"), "FAILED"),
        (SystemExit(2), "FAILED"),
        (SystemExit(0), "FINISHED"),
        (SystemExit(143), "KILLED"),
        (KeyboardInterrupt(), "KILLED"),
    ],
)
def test_the_status_says_how_a_stage_ended(
    error: BaseException, status: str, project: Path
) -> None:
    with pytest.raises(type(error)), stage_run("stage", project / "params.yaml", []):
        raise error
    assert runs_in(project)["stage"].info.status == status


def test_stages_of_an_mlflow_project_hang_under_its_run(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(project)
    experiment = client.create_experiment("projects", (project / "there").as_uri())
    outer = client.create_run(experiment, run_name="outer").info.run_id
    client.log_param(outer, "dataset.name", "set on the command line")
    for stage in ("train_cnn", "train_vae"):
        monkeypatch.setenv("MLFLOW_RUN_ID", outer)
        with stage_run(stage, project / "params.yaml", [stage]):
            assert "MLFLOW_RUN_ID" not in os.environ
    runs = runs_in(project, "projects")
    assert set(runs) == {"outer", "train_cnn", "train_vae"}
    assert {runs[stage].data.tags["mlflow.parentRunId"] for stage in runs if stage != "outer"} == {
        outer
    }
    assert runs["outer"].info.status == "RUNNING"  # `mlflow run` ends it
    assert runs["outer"].data.params["dataset.name"] == "set on the command line"
    assert runs["outer"].data.params["train_vae.architecture"] == "small"


# Each stage is a fork of a process named dvc that has imported mlflow, which takes seconds.
DVC = """
import multiprocessing, sqlite3, sys, time
from pathlib import Path
import mlflow.store.tracking.sqlalchemy_store
from diptych.tracking.runs import stage_run

def run(stage):
    with stage_run(stage, Path(sys.argv[1]), [stage]) as tracker:
        tracker.log_summary({f"{stage}.accuracy": 0.5})
        if stage == "train_vae":
            raise SystemExit(1)
        if stage == "evaluate":
            print(statuses_once_recorded("evaluate"))

def statuses_once_recorded(name):
    database = sqlite3.connect(Path(sys.argv[1]).with_name("mlflow.db"))
    while name not in (found := dict(database.execute("select name, status from runs"))):
        time.sleep(0.05)
    return sorted(found.values())

for stage in ("train_cnn", "train_vae", "evaluate"):
    child = multiprocessing.get_context("fork").Process(target=run, args=(stage,))
    child.start()
    child.join()
"""


def test_stages_of_one_dvc_execution_hang_under_one_run(project: Path) -> None:
    (project / "dvc").write_text(DVC)
    command = [sys.executable, str(project / "dvc"), str(project / "params.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stderr == ""
    # While the third stage runs: it, the two before it, and their common parent, alive again.
    assert done.stdout == "['FAILED', 'FINISHED', 'RUNNING', 'RUNNING']\n"
    runs = runs_in(project)
    assert set(runs) == {"mnist cnn:article vae:small", "train_cnn", "train_vae", "evaluate"}
    parent = runs.pop("mnist cnn:article vae:small")
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert parent.data.metrics == {f"{stage}.accuracy": 0.5 for stage in runs}
    assert parent.data.params == {
        "dataset.name": "mnist",
        "dataset.sources": '["mirrors", "https://***@host/x?***"]',
        "train_cnn.architecture": "article",
        "train_cnn.learning_rate": "0.001",
        "train_cnn.augment": "true",
        "train_vae.architecture": "small",
    }
    assert runs["train_vae"].info.status == "FAILED"
    assert parent.info.status == runs["evaluate"].info.status == "FINISHED"


SWITCHED_OFF = """
import sys
from pathlib import Path
from diptych.tracking.runs import stage_run
with stage_run("stage", Path(sys.argv[1]), []) as tracker:
    tracker.log_metrics({"loss": 1.0}, 0)
print(sorted({"mlflow", "torch"} & set(sys.modules)))
"""


def test_switched_off_nothing_is_recorded_or_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIPTYCH_TRACKING", "off")
    with stage_run("stage", tmp_path / "params.yaml", []) as tracker:
        assert isinstance(tracker, NullTracker)
    command = [sys.executable, "-c", SWITCHED_OFF, str(tmp_path / "params.yaml")]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "[]\n"
    assert list(tmp_path.iterdir()) == []


def test_a_switch_that_is_neither_on_nor_off_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIPTYCH_TRACKING", "of")
    with (
        pytest.raises(TrackingError, match=r"^DIPTYCH_TRACKING: must be on or off \(got 'of'\)$"),
        stage_run("stage", Path("params.yaml"), []),
    ):
        pass
