"""Which execution is judged when none is named: the newest that is complete and recorded."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from diptych.cli import app
from diptych.locks import try_lock
from diptych.tracking.client import StoreError
from diptych.tracking.events import ParentRun, RunEnded, RunStarted
from diptych.tracking.journal import Journal
from diptych.tracking.mlflow_tracker import JOURNALS_FOLDER
from diptych.tracking.origins import PipelineRun, check_recorded, find_origin
from diptych.tracking.process import LOCK_FILE, SNAPSHOT_FOLDER
from diptych.tracking.store import DATABASE_FILE, find_store
from diptych.tracking.sync import sync
from tests.tracking.promotions import COMMIT, EXPERIMENT, Copier, Project

STAGES = ("train_cnn", "train_vae", "evaluate")


@pytest.fixture
def project(copied: Copier, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project that is the working directory; the newest of its executions is `worse`."""
    made = copied("project")
    monkeypatch.chdir(made.root)
    return made


def add_stages(project: Project, stages: Mapping[str, str], status: str = "FINISHED") -> str:
    """Record a newer execution with runs of stages in such a status; return its run's id."""
    client = project.client
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    tags = {"diptych.execution": f"newer {json.dumps(stages)}"}
    parent = client.create_run(experiment.experiment_id, tags=tags).info.run_id
    for stage, its_status in stages.items():
        tags = {"diptych.stage": stage, "mlflow.parentRunId": parent}
        run_id = client.create_run(experiment.experiment_id, tags=tags).info.run_id
        client.update_run(run_id, its_status)
    client.update_run(parent, status)
    return str(parent)


def newest(project: Project) -> PipelineRun:
    return find_origin(project.client, EXPERIMENT, "cnn", None)[1]


@pytest.mark.parametrize(
    ("stages", "status"),
    [
        ({}, "FINISHED"),
        ({"train_cnn": "FINISHED"}, "FINISHED"),  # as of `dvc repro train_cnn`, and between stages
        ({"train_cnn": "FINISHED", "train_vae": "FINISHED", "evaluate": "RUNNING"}, "FINISHED"),
        ({"train_cnn": "FINISHED", "train_vae": "FINISHED", "evaluate": "FAILED"}, "FINISHED"),
        ({"train_vae": "FINISHED", "evaluate": "FINISHED"}, "FINISHED"),
        (dict.fromkeys(STAGES, "FINISHED"), "RUNNING"),
        (dict.fromkeys(STAGES, "FINISHED"), "FAILED"),
    ],
)
def test_an_execution_that_is_not_complete_is_passed_over(
    project: Project, stages: Mapping[str, str], status: str
) -> None:
    parent = add_stages(project, stages, status)
    assert newest(project).run_id == project.executions["worse"].run_id
    if status == "FINISHED":
        with pytest.raises(StoreError, match=rf"^run {parent}: must have a finished stage "):
            find_origin(project.client, EXPERIMENT, "cnn", parent)


def test_the_newest_complete_one_is_found_behind_however_many_others(project: Project) -> None:
    for _ in range(51):  # more than one page
        add_stages(project, {})
    assert newest(project).run_id == project.executions["worse"].run_id


def test_links_make_an_execution_complete(project: Project) -> None:
    made = project.executions["better"].runs
    parent = add_stages(project, dict.fromkeys(STAGES, "FINISHED"))
    condition = f"tags.`mlflow.parentRunId` = '{parent}'"
    experiment = project.client.get_experiment_by_name(EXPERIMENT)
    for run in project.client.search_runs([experiment.experiment_id], condition):
        maker = made[run.data.tags["diptych.stage"]]
        project.client.set_tag(run.info.run_id, "diptych.reused_run_id", maker)
    origin, pipeline_run = find_origin(project.client, EXPERIMENT, "cnn", None)
    assert origin.run_id == made["train_cnn"]
    assert pipeline_run == PipelineRun(parent, user=None, commit=None)


def test_a_store_without_a_complete_execution_is_one_line(project: Project) -> None:
    for execution in project.executions.values():
        project.client.delete_run(execution.runs["evaluate"])
    line = (
        f"experiment {EXPERIMENT}: must have a finished pipeline run with the stages "
        "train_cnn, train_vae, evaluate (got none)"
    )
    with pytest.raises(StoreError) as caught:
        newest(project)
    assert str(caught.value) == line
    with pytest.raises(StoreError, match=r"^experiment nowhere: must have a finished pipeline run"):
        find_origin(project.client, "nowhere", "cnn", None)


def told(
    root: Path, folder: str = "key-1", *, store: str = "", experiment: str = EXPERIMENT
) -> Journal:
    """A stage's run whose process has told its end; closed, it waits to be recorded."""
    store = store or find_store(root, {}).uri
    place = root / JOURNALS_FOLDER / folder / "journal"
    journal = Journal(place, {"store": store, "experiment": experiment})
    parent = ParentRun(None, "key", "pipeline", {}, {})
    journal.append(RunStarted("train_cnn", {"diptych.stage": "train_cnn"}, parent, 1))
    journal.append(RunEnded("FINISHED", 9))
    return journal


def test_no_execution_is_judged_by_itself_while_own_ones_wait_to_be_recorded(
    project: Project,
) -> None:
    told(project.root).close()
    done = CliRunner().invoke(app, ["promote", "cnn"])
    line = (
        f"{project.root / JOURNALS_FOLDER}: must be recorded in "
        f"sqlite:///{project.root / DATABASE_FILE} (got 1 not recorded, perhaps the newest "
        "execution): run `diptych sync`, or name a run by --run"
    )
    assert isinstance(done.exception, StoreError)
    assert str(done.exception) == line
    named = ("--run", project.executions["plain"].run_id)
    assert CliRunner().invoke(app, ["promote", "cnn", *named]).exit_code == 0
    assert [run.is_recorded for run in sync(project.root, {})] == [True]
    # What was waiting is no complete execution; the one that is judged is `worse`.
    done = CliRunner().invoke(app, ["promote", "cnn", "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["pipeline_run"]["run_id"] == project.executions["worse"].run_id


def test_what_does_not_wait_for_this_store_keeps_nobody(project: Project) -> None:
    params = project.root / "params.yaml"
    told(project.root, "another store", store="http://127.0.0.1:1").close()
    told(project.root, "another experiment", experiment="e").close()
    running = told(project.root, "an execution that goes on")
    check_recorded(params)
    running.close()
    with pytest.raises(StoreError, match=r"got 1 not recorded, perhaps the newest execution"):
        check_recorded(params)


def test_links_that_are_not_told_yet_are_waited_for(project: Project) -> None:
    params, folder = project.root / "params.yaml", project.root / JOURNALS_FOLDER / "key-1"
    told(project.root).close()
    assert [run.is_recorded for run in sync(project.root, {})] == [True]
    check_recorded(params)
    (folder / SNAPSHOT_FOLDER).mkdir(parents=True)
    with pytest.raises(StoreError, match="run `diptych sync`"):
        check_recorded(params)
    (folder / SNAPSHOT_FOLDER).rmdir()
    check_recorded(params)
    with (folder / LOCK_FILE).open("ab") as lock:
        assert try_lock(lock)  # as by its recorder
        with pytest.raises(StoreError, match="run `diptych sync`"):
            check_recorded(params)


def test_links_of_an_execution_told_elsewhere_keep_nobody(project: Project, copied: Copier) -> None:
    params, journals = project.root / "params.yaml", project.root / JOURNALS_FOLDER
    told(project.root, "key-1", store=copied("another").uri).close()
    told(project.root, "key-2", experiment="another").close()
    assert [run.is_recorded for run in sync(project.root, {})] == [True, True]
    for folder in ("key-1", "key-2"):
        (journals / folder / SNAPSHOT_FOLDER).mkdir(parents=True)
    check_recorded(params)
    with (journals / "key-1" / LOCK_FILE).open("ab") as lock:
        assert try_lock(lock)  # as by its recorder
        check_recorded(params)


def test_a_verdict_names_the_execution_its_user_and_its_commit(project: Project) -> None:
    run_id = project.executions["better"].run_id
    dry = ("promote", "cnn", "--run", run_id, "--dry-run")
    lines = CliRunner().invoke(app, dry).stdout.splitlines()
    assert lines[-2] == f"judged: run {run_id} of nobody known, commit {COMMIT}"
    project.client.set_tag(run_id, "mlflow.user", "ann")
    lines = CliRunner().invoke(app, dry).stdout.splitlines()
    assert lines[-2:] == [
        f"judged: run {run_id} of ann, commit {COMMIT}",
        "diptych-cnn, dry run: would be promoted (champion until now: none)",
    ]
    spoken = json.loads(CliRunner().invoke(app, [*dry, "--json"]).stdout)
    assert spoken["pipeline_run"] == {"run_id": run_id, "user": "ann", "commit": COMMIT}
