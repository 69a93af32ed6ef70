import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from diptych.params import read_yaml
from diptych.tracking.mlflow_tracker import JOURNALS_FOLDER
from diptych.tracking.runs import TrackingError, stage_run
from diptych.tracking.tracker import NullTracker

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


class RunsIn(Protocol):
    def __call__(self, project: Path, experiment: str = ...) -> "dict[str, Run]": ...


def client_of(project: Path) -> "MlflowClient":
    import mlflow

    return mlflow.MlflowClient(tracking_uri=f"sqlite:///{project / 'mlflow.db'}")


@pytest.fixture
def runs_in(wait_until_recorded: Callable[[Path], None]) -> "RunsIn":
    """The runs of a project by name, once everything is recorded."""

    def find(project: Path, experiment: str = "diptych") -> "dict[str, Run]":
        wait_until_recorded(project)
        return recorded_runs(project, experiment)

    return find


def recorded_runs(project: Path, experiment: str) -> "dict[str, Run]":
    client = client_of(project)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    by_name = {str(run.info.run_name): run for run in runs}
    assert len(by_name) == len(runs)
    return by_name


@pytest.mark.usefixtures("recorder_threads")
def test_a_stage_without_a_pipeline_stands_alone(project: Path, runs_in: RunsIn) -> None:
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


@pytest.mark.usefixtures("recorder_threads")
def test_tags_say_where_a_run_comes_from(
    project: Path, monkeypatch: pytest.MonkeyPatch, runs_in: RunsIn
) -> None:
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
    assert "diptych.code_diff_sha256" not in tags
    assert re.fullmatch("sha256:[0-9a-f]{64}", tags["diptych.dep.dvc.lock"])
    assert re.fullmatch("[0-9a-f]{64}", tags["diptych.params_sha256"])
    (project / "dvc.lock").write_text("rewritten by DVC")
    assert tags_of_a_run("two")["diptych.git_dirty"] == "false"
    (project / "dvc.yaml").write_text("changed by hand")
    changed = tags_of_a_run("three")
    assert changed["diptych.git_dirty"] == "true"
    assert re.fullmatch("[0-9a-f]{64}", changed["diptych.code_diff_sha256"])
    assert "diptych.fingerprint" not in changed  # that dvc.yaml describes no stage


@pytest.mark.usefixtures("recorder_threads")
@pytest.mark.parametrize("sources", ["[mirrors]", "[mirrors, 'https://me:hunter2@host/x']"])
def test_a_run_keeps_all_parameters_as_a_parameter_file(
    project: Path, runs_in: RunsIn, sources: str, tmp_path: Path
) -> None:
    text = f"dataset: {{sources: {sources}, name: 'true'}}  # ä\ntrain_cnn: {{rate: 1e-3, n: 1}}\n"
    (project / "params.yaml").write_text(text, encoding="utf-8")
    with stage_run("stage", project / "params.yaml", []):
        (project / "params.yaml").write_text("changed since")
    run_id = runs_in(project)["stage"].info.run_id
    kept = Path(client_of(project).download_artifacts(run_id, "params.yaml", str(tmp_path)))
    if "hunter2" in sources:
        content = read_yaml(kept)
        assert content["dataset"].pop("sources") == ["mirrors", "https://***@host/x"]
        assert content == {"dataset": {"name": "true"}, "train_cnn": {"rate": 0.001, "n": 1}}
    else:
        assert kept.read_text(encoding="utf-8") == text


@pytest.mark.usefixtures("recorder_threads")
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
    error: BaseException, status: str, project: Path, runs_in: RunsIn
) -> None:
    with pytest.raises(type(error)), stage_run("stage", project / "params.yaml", []):
        raise error
    assert runs_in(project)["stage"].info.status == status


@pytest.mark.usefixtures("recorder_threads")
def test_stages_of_an_mlflow_project_hang_under_its_run(
    project: Path, monkeypatch: pytest.MonkeyPatch, runs_in: RunsIn
) -> None:
    client = client_of(project)
    experiment = client.create_experiment("projects", (project / "there").as_uri())
    outer = client.create_run(experiment, run_name="outer").info.run_id
    client.log_param(outer, "dataset.name", "set on the command line")
    client.set_tag(outer, "mlflow.source.name", "the project")
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
    # What was not said of it is: all that is said of an execution's run.
    tags = runs["outer"].data.tags
    assert tags["mlflow.source.name"] == "the project"
    assert tags["diptych.cpu"] == runs["train_vae"].data.tags["diptych.cpu"]
    assert re.fullmatch("[0-9a-f]{64}", tags["diptych.params_sha256"])


DVC = """
import sqlite3, subprocess, sys, time
from pathlib import Path
import psutil
from diptych.tracking.runs import stage_run

def run(stage):
    with stage_run(stage, Path(sys.argv[1]), [stage]) as tracker:
        tracker.log_summary({f"{stage}.accuracy": 0.5})
        if stage == "train_vae":
            raise SystemExit(1)
        if stage == "evaluate":
            print(statuses_once_recorded("evaluate"), num_recorders(), "mlflow" in sys.modules)

def statuses_once_recorded(name):
    database = sqlite3.connect(Path(sys.argv[1]).with_name("mlflow.db"))
    while name not in (found := dict(database.execute("select name, status from runs"))):
        time.sleep(0.05)
    return sorted(found.values())

def num_recorders():
    folder = str(Path(sys.argv[1]).parent / ".diptych")
    commands = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return sum(any(word.startswith(folder) for word in command) for command in commands)

if len(sys.argv) == 3:
    run(sys.argv[2])
else:
    for stage in ("train_cnn", "train_vae", "evaluate"):
        program = "import sys; exec(open(sys.argv.pop(1)).read())"
        subprocess.run([sys.executable, "-c", program, *sys.argv, stage])
"""


def test_stages_of_one_dvc_execution_hang_under_one_run_and_share_a_recorder(
    project: Path, runs_in: RunsIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIPTYCH_GROUP_RUN", "the group's")
    (project / "dvc").write_text(DVC)
    command = [sys.executable, str(project / "dvc"), str(project / "params.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert done.stderr == ""
    # While the third stage runs: it, the two before it, and their common parent, alive again.
    assert done.stdout == "['FAILED', 'FINISHED', 'RUNNING', 'RUNNING'] 1 False\n"
    runs = runs_in(project)
    assert list((project / JOURNALS_FOLDER).iterdir()) == []  # its recorder has ended
    assert set(runs) == {"mnist cnn:article vae:small", "train_cnn", "train_vae", "evaluate"}
    parent = runs.pop("mnist cnn:article vae:small")
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert parent.data.tags["mlflow.parentRunId"] == "the group's"
    assert parent.data.tags["diptych.group"] == "the group's"
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
    assert runs["evaluate"].info.status == "FINISHED"
    assert parent.info.status == "FAILED"  # one of its stages did, though not the last one
    tags = [run.data.tags for run in runs.values()]
    seconds = sum(float(one["diptych.seconds"]) for one in tags)
    assert float(parent.data.tags["diptych.seconds"]) == pytest.approx(seconds, abs=0.01)
    most = max(int(one["diptych.peak_memory_mib"]) for one in tags)
    assert parent.data.tags["diptych.peak_memory_mib"] == str(most)


SWITCHED_OFF = """
import sys
from collections.abc import Callable
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
