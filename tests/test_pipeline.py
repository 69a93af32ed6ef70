"""The real pipeline, end to end, in a copy of the project: real MNIST, a real server, tiny models.

Every way of running it records on an MLflow server on loopback, the last ones in the project's own
store or nowhere. The tests are scenarios of one project's life, in order: each goes on where the
one before it ended.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import psutil
import pytest

from diptych.images.arrays import load_description
from diptych.params import dotted, read_yaml
from diptych.tracking.figures import numeric_figures
from diptych.tracking.mlflow_tracker import JOURNALS_FOLDER
from diptych.tracking.process import is_recorder_alive
from diptych.tracking.tracker import as_text

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# `make test` gives a file to one worker: they share a project, and making one takes a minute.
pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).parents[1]
STAGES = list(read_yaml(ROOT / "dvc.yaml")["stages"])
TINY = (
    "preprocess.num_validation=55000",  # leaves 5,000 to train on
    "compute.device=cpu",
    "compute.precision=float32",
    "compute.num_threads=1",
    "train_cnn.width=2",
    "train_cnn.num_blocks=1",
    "train_cnn.num_epochs=1",
    "train_vae.architecture=article",
    "train_vae.num_latents=2",
    "train_vae.num_epochs=2",
    "evaluate.num_importance_samples=1",
    "evaluate.num_mistakes=4",
    "evaluate.num_reconstructions=4",
    "generate_samples.num_samples=20",
    "generate_samples.num_shown=20",
    "generate_samples.manifold_side=5",
    "generate_samples.num_interpolations=2",
    "generate_samples.num_per_class=3",
)
REUSED, AGAIN_TAG = "diptych.reused_run_id", "diptych.logged_again"
HEADLINES = ("evaluate", "generate_samples")
PICTURES = {
    "train_vae": {"reconstructions": [1, 2]},
    "evaluate": {"test_reconstructions": [0]},
    "generate_samples": {
        "class_walks": [0],
        "interpolations": [0],
        "manifold": [0],
        "prior_samples": [0],
    },
}


@dataclass(frozen=True)
class Project:
    """A copy of this project under git, in which commands run as in an activated environment."""

    folder: Path
    environment: dict[str, str]

    @property
    def store(self) -> str:
        """The server's address."""
        return self.environment["MLFLOW_TRACKING_URI"]

    @property
    def own_store(self) -> str:
        """Where runs are recorded when no other store is named."""
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    def run(self, *command: str, **variables: str) -> str:
        """Return what a command that must succeed prints."""
        # Not by a pipe: it would stay open for as long as DVC's queue workers go on.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                command,
                cwd=self.folder,
                env=self.environment | variables,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=600,
            )
            output.seek(0)
            printed = output.read()
        assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{printed}"
        self._wait_until_recorded()
        return printed

    def _wait_until_recorded(self) -> None:
        """Wait for the recorders, which go on after the stages."""
        deadline = time.monotonic() + 300
        while any(map(is_recorder_alive, (self.folder / JOURNALS_FOLDER).glob("*"))):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def commit(self, message: str) -> str:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)
        return self.run("git", "rev-parse", "HEAD").strip()

    def changes(self) -> str:
        return self.run("git", "status", "--porcelain")

    def read_json(self, path: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.folder / path).read_bytes())
        return value


@dataclass(frozen=True)
class Execution:
    """One execution of the pipeline: what it printed and the runs that it left."""

    output: str
    parent: "Run"
    stages: "dict[str, Run]"

    @property
    def ran(self) -> list[str]:
        """The stages that really ran."""
        return sorted(
            name for name, run in self.stages.items() if not {REUSED, AGAIN_TAG} & {*run.data.tags}
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real MLflow server on loopback."""
    folder = tmp_path_factory.mktemp("server")
    uri = f"http://127.0.0.1:{free_port()}"
    command = [
        *("mlflow", "server", "--host", "127.0.0.1", "--port", uri.rpartition(":")[2]),
        *("--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    environment = clean_environment(folder, folder)
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        wait_for(f"{uri}/health", process)
        yield uri
    finally:
        process.terminate()
        process.wait(timeout=120)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(address: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):  # noqa: S310  # loopback
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail("the server did not start")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, server: str) -> Project:
    home = tmp_path_factory.mktemp("pipeline")
    folder = home / "project"
    copy_working_tree(folder)
    change_params(folder, dataset_sources(), *TINY)
    environment = clean_environment(home, folder) | {"MLFLOW_TRACKING_URI": server}
    project = Project(folder, environment)
    project.run("git", "init", "--quiet")
    project.commit("The project")
    return project


def copy_working_tree(folder: Path) -> None:
    """Copy what git tracks, and what it would track if it were added."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def dataset_sources() -> str:
    """The sources that ship, after the files that this checkout may have."""
    sources = [str(ROOT / "data" / "raw"), *read_yaml(ROOT / "params.yaml")["dataset"]["sources"]]
    return f"dataset.sources={json.dumps(sources)}"


def change_params(folder: Path, *changes: str) -> None:
    from dvc.utils.hydra import apply_overrides

    apply_overrides(folder / "params.yaml", list(changes))


def clean_environment(home: Path, folder: Path) -> dict[str, str]:
    """This process's environment without what would steer git, DVC or MLflow."""
    steering = ("GIT_", "DVC_", "MLFLOW_", "DIPTYCH_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(steering)}
    person = {f"GIT_{role}_NAME": "Tester" for role in ("AUTHOR", "COMMITTER")}
    address = {f"GIT_{role}_EMAIL": "tester@localhost" for role in ("AUTHOR", "COMMITTER")}
    return {
        **kept,
        **person,
        **address,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
        "PYTHONPATH": str(folder / "src"),
        "OMP_NUM_THREADS": "1",
        "DVC_SITE_CACHE_DIR": str(home / "dvc-site"),
        "DVC_GLOBAL_CONFIG_DIR": str(home / "dvc-global"),
        "DVC_SYSTEM_CONFIG_DIR": str(home / "dvc-system"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }


@pytest.fixture(scope="module")
def first(project: Project) -> Execution:
    """The first `dvc repro`."""
    return execute(project, "dvc", "repro")


def execute(project: Project, *command: str, store: str = "", **variables: str) -> Execution:
    """Run a command that executes the pipeline once, and return what it added to a store."""
    with added_runs(store or project.store) as added:
        output = project.run(*command, **variables)
    return Execution(output, *family(added))


@contextmanager
def added_runs(store: str) -> "Iterator[list[Run]]":
    """Give a list that holds, after the block, the runs that were added in it."""
    known = {run.info.run_id for run in runs_in(store)}
    added: list[Run] = []
    yield added
    added += [run for run in runs_in(store) if run.info.run_id not in known]


def family(runs: "Sequence[Run]") -> "tuple[Run, dict[str, Run]]":
    """The one parent, and its children by name; there is nobody else."""
    (found,) = families(runs)
    return found


def families(runs: "Sequence[Run]") -> "list[tuple[Run, dict[str, Run]]]":
    """Every parent, and its children by name; there is nobody else, and nobody goes on."""
    assert {run.info.status for run in runs} == {"FINISHED"}
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    found = []
    for parent in parents:
        children = [
            run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
        ]
        by_name = {str(run.info.run_name): run for run in children}
        assert len(by_name) == len(children)
        found.append((parent, by_name))
    assert len(runs) == len(found) + sum(len(children) for _, children in found)
    return found


def check_whole(project: Project, parent: "Run", stages: "dict[str, Run]", ran: list[str]) -> None:
    """An execution shows every stage: these ran, the others link to the runs that made their files.

    Its own row has the headline figures, whoever made them.
    """
    assert set(stages) == set(STAGES)
    known = {run.info.run_id: run for run in runs_in(project.store)}
    for name in set(STAGES) - set(ran):
        link = stages[name]
        made = known[link.data.tags[REUSED]]
        assert made.info.run_name == name
        assert not {REUSED, AGAIN_TAG} & {*made.data.tags}
        assert made.data.tags["diptych.fingerprint"] == link.data.tags["diptych.fingerprint"]
        assert (made.data.params, made.data.metrics) == (link.data.params, link.data.metrics)
        assert models_of(made) == models_of(link)
        assert inputs_of(made) == inputs_of(link)
    headlines = [stages[name].data.metrics for name in HEADLINES]
    assert parent.data.metrics == headlines[0] | headlines[1]


def models_of(run: "Run") -> list[str]:
    return sorted(model.model_id for model in run.outputs.model_outputs) if run.outputs else []


def inputs_of(run: "Run") -> list[tuple[str, ...]]:
    """Data sets with their digests and what they were used for."""
    return [
        (one.dataset.name, one.dataset.digest, *sorted(tag.value for tag in one.tags))
        for one in (run.inputs.dataset_inputs if run.inputs else [])
    ]


def client_of(store: str) -> "MlflowClient":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of mlflow's own imports
        import mlflow

        return mlflow.MlflowClient(tracking_uri=store)


def runs_in(store: str) -> "list[Run]":
    if store.startswith("sqlite:///") and not Path(store.removeprefix("sqlite:///")).exists():
        return []
    client = client_of(store)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments))


def executed(output: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", output)


def artifacts_of(project: Project, run: "Run", folder: str) -> list[str]:
    found = client_of(project.store).list_artifacts(run.info.run_id, folder)
    return [Path(artifact.path).name for artifact in found]


def test_repro_runs_every_stage_under_one_run(project, first):
    assert sorted(executed(first.output)) == sorted(STAGES)
    assert set(first.stages) == set(STAGES)
    assert "warning" not in first.output


def test_the_parent_holds_every_parameter_under_its_section(project, first):
    params = dotted(read_yaml(project.folder / "params.yaml"))
    assert first.parent.data.params == as_text(params)
    assert first.parent.info.run_name == "mnist cnn:compact vae:article"
    sections = {key.split(".")[0] for key in first.stages["train_vae"].data.params}
    assert sections == {"compute", "train_vae"}


def test_tags_say_stage_commit_and_data(project, first):
    head = project.run("git", "rev-parse", "HEAD").strip()
    for name, run in first.stages.items():
        assert run.data.tags["dvc.stage"] == name
        assert run.data.tags["mlflow.source.git.commit"] == head
        assert run.data.tags["diptych.git_dirty"] == "false"
    digest = load_description(project.folder / "data" / "processed").digest
    assert first.stages["preprocess"].data.tags["diptych.dataset_sha256"] == digest


@pytest.mark.parametrize("stage", ["train_cnn", "train_vae"])
def test_curves_are_those_of_the_file(project, first, stage):
    client, run_id = client_of(project.store), first.stages[stage].info.run_id
    curves = pd.read_csv(project.folder / "plots" / f"{stage}.csv")
    for name in curves.columns.drop("epoch"):
        history = {point.step: point.value for point in client.get_metric_history(run_id, name)}
        assert history == pytest.approx(dict(zip(curves["epoch"], curves[name], strict=True)))


def test_headline_figures_are_on_the_parent(project, first):
    for stage in HEADLINES:
        figures = numeric_figures(project.read_json(f"metrics/{stage}.json"))
        assert len(figures) > 4
        recorded = {key: first.parent.data.metrics.get(key) for key in figures}
        assert recorded == pytest.approx(figures)


@pytest.mark.parametrize("stage", PICTURES)
def test_pictures_have_stable_keys_and_steps(project, first, stage):
    names = artifacts_of(project, first.stages[stage], "images")
    found = sorted(tuple(re.split("[+%]", name)[:3]) for name in names if name.endswith(".png"))
    assert found == [(key, "step", str(n)) for key, steps in PICTURES[stage].items() for n in steps]


def test_files_of_the_last_stages_are_artifacts(project, first):
    for stage, folder in (("evaluate", "evaluation"), ("generate_samples", "samples")):
        pictures = [path.name for path in (project.folder / folder).glob("*.*")]
        found = artifacts_of(project, first.stages[stage], folder)
        assert sorted(found) == sorted([*pictures, f"{stage}.json"])
        assert len(pictures) > 3
    assert "per_image.json" in artifacts_of(project, first.stages["evaluate"], "")
    for stage in ("train_cnn", "train_vae"):
        expected = {"curves.png", f"{stage}.csv", f"{stage}.json"}
        assert expected <= {*artifacts_of(project, first.stages[stage], "")}


def test_the_models_are_logged_and_ready(project, first):
    client = client_of(project.store)
    logged = client.search_logged_models([first.parent.info.experiment_id])
    makers = {"cnn": "train_cnn", "vae": "train_vae", "pair": "evaluate"}
    assert {model.name: model.status for model in logged} == dict.fromkeys(makers, "READY")
    for model in logged:
        assert model.source_run_id == first.stages[makers[model.name]].info.run_id
        description = project.read_json(f"models/{model.name}/model.json")
        assert model.tags["weights_sha256"] == description["weights_sha256"]
        place = f"mlflow-artifacts:/{model.experiment_id}/models/{model.model_id}/"
        assert model.artifact_location.startswith(place)


def test_the_table_of_runs_shows_what_is_recorded(project, first):
    address = project.run("diptych", "ui").splitlines()[0]
    assert address.startswith(f"runs: {project.store}/#/experiments/")
    experiment = client_of(project.store).get_experiment(first.parent.info.experiment_id)
    view = json.loads(experiment.tags["mlflow.sharedViewState.diptych-runs"])
    data = first.parent.data
    recorded = {
        "metrics": {name for key in data.metrics for name in (key, f"{key}.mean")},  # over seeds
        "params": {*data.params},
        "tags": {*data.tags},
    }
    columns = [column.partition(".") for column in view["selectedColumns"]]
    assert len(columns) > 5
    assert [one for kind, _, one in columns if one.strip("`") not in recorded[kind]] == []


def test_outputs_hold_no_run_and_no_place(project, first):
    run_ids = [run.info.run_id for run in (first.parent, *first.stages.values())]
    strangers = [text.encode() for text in (*run_ids, str(project.folder))]
    outputs = [
        path
        for folder in ("models", "metrics", "plots", "evaluation", "samples")
        for path in (project.folder / folder).rglob("*")
        if path.is_file()
    ]
    outputs += [project.folder / "dvc.lock", project.folder / "data" / "processed" / "dataset.json"]
    assert len(outputs) > 15
    assert [path for path in outputs if any(text in path.read_bytes() for text in strangers)] == []


def test_a_stage_that_runs_again_leaves_equal_bytes_and_a_clean_tree(project, first):
    project.commit("The reference run")
    shutil.rmtree(project.folder / "samples")
    command = ("dvc", "repro", "--force", "--single-item", "--no-run-cache", "generate_samples")
    again = execute(project, *command)
    assert executed(again.output) == again.ran == ["generate_samples"]
    check_whole(project, again.parent, again.stages, again.ran)
    assert project.changes() == ""


def test_repro_again_runs_nothing_and_adds_no_run(project, first):
    with added_runs(project.store) as added:
        output = project.run("dvc", "repro")
    assert executed(output) == []
    assert output.count("didn't change, skipping") == len(STAGES)
    assert added == []
    assert project.changes() == ""


def test_metrics_and_plots_are_shown(project, first):
    files = [f"metrics/{stage}.json" for stage in STAGES[2:]]
    shown = json.loads(project.run("dvc", "metrics", "show", "--json"))[""]["data"]
    assert {path: numeric_figures(found["data"]) for path, found in shown.items()} == {
        path: numeric_figures(project.read_json(path)) for path in files
    }
    page = project.folder.parent / "plots"
    project.run("dvc", "plots", "show", "--out", str(page))
    html = (page / "index.html").read_text(encoding="utf-8")
    plots = read_yaml(project.folder / "dvc.yaml")["plots"]
    for title in (title for plot in plots if isinstance(plot, dict) for title in plot):
        assert title in html
    for picture in (plot for plot in plots if isinstance(plot, str)):
        name = f"static/workspace_{picture.replace('/', '_')}"
        assert f'src="{name}"' in html
        assert (page / name).is_file()


def test_an_experiment_with_the_vae_leaves_the_cnn(project, first):
    experiment = execute(project, "dvc", "exp", "run", "-S", "train_vae.num_latents=3")
    ran = ["train_vae", "evaluate", "generate_samples"]
    assert sorted(executed(experiment.output)) == experiment.ran == sorted(ran)
    check_whole(project, experiment.parent, experiment.stages, ran)
    names = {run.data.tags["dvc.experiment"] for run in experiment.stages.values()}
    assert names == {experiment.parent.info.run_name}
    assert experiment.parent.data.params["train_vae.num_latents"] == "3"
    diff = json.loads(project.run("dvc", "metrics", "diff", "--json"))
    changed = diff["metrics/evaluate.json"]["vae.num_latents"]
    assert (changed["old"], changed["new"]) == (2, 3)
    assert "metrics/train_cnn.json" not in diff


def test_an_experiment_in_a_temporary_folder_has_the_same_form(project, first):
    change = "generate_samples.seed=1"
    experiment = execute(project, "dvc", "exp", "run", "--temp", "-S", change)
    assert experiment.ran == ["generate_samples"]
    check_whole(project, experiment.parent, experiment.stages, experiment.ran)
    assert experiment.parent.data.params["generate_samples.seed"] == "1"
    pictures = artifacts_of(project, experiment.stages["generate_samples"], "samples")
    assert "manifold.png" in pictures


def test_what_dvc_restores_in_a_temporary_folder_is_linked_to(project, first):
    # Of what the test before has made, at the very end of an execution.
    changes = (
        "-S",
        "generate_samples.seed=1",
        "-S",
        f"dataset.sources={other_sources(project, '/one')}",
    )
    experiment = execute(project, "dvc", "exp", "run", "--temp", *changes)
    assert executed(experiment.output) == experiment.ran == ["download"]
    assert "Stage 'generate_samples' is cached - skipping run" in experiment.output
    check_whole(project, experiment.parent, experiment.stages, experiment.ran)
    assert experiment.stages["generate_samples"].data.params["generate_samples.seed"] == "1"


def other_sources(project: Project, last: str) -> str:
    """Sources that lead to the same files."""
    return json.dumps([*read_yaml(project.folder / "params.yaml")["dataset"]["sources"], last])


def test_queued_experiments_side_by_side_have_the_same_form(project, first):
    with added_runs(project.store) as added:
        for seed in (3, 4):
            project.run("dvc", "exp", "run", "--queue", "-S", f"generate_samples.seed={seed}")
        with ended_queue_workers(project):
            project.run("dvc", "queue", "start", "-j", "2")
            wait_for_queue(project, num_tasks=2)
    experiments = families(added)
    seeds = {parent.data.params["generate_samples.seed"] for parent, _ in experiments}
    assert seeds == {"3", "4"}
    for parent, stages in experiments:
        check_whole(project, parent, stages, ["generate_samples"])
        assert stages["generate_samples"].data.tags["dvc.experiment"] == parent.info.run_name


@contextmanager
def ended_queue_workers(project: Project) -> Iterator[None]:
    """End DVC's workers, which do not always end by themselves.

    When two find the queue empty at once, the order to shut down that one gives itself can be lost.
    """
    try:
        yield
    finally:
        for path in (project.folder / ".dvc/tmp/exps/celery").glob("dvc-exp-worker-*.pid"):
            with suppress(psutil.NoSuchProcess):
                worker = psutil.Process(int(path.read_text()))
                if "queue-worker" in worker.cmdline():
                    worker.terminate()
                    worker.wait(timeout=60)


def wait_for_queue(project: Project, num_tasks: int) -> None:
    """Wait until so many tasks have succeeded, and then for their recorders."""
    deadline = time.monotonic() + 300
    while project.run("dvc", "queue", "status").count("Success") < num_tasks:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_a_stage_as_an_mlflow_project_hangs_under_its_run(project, first):
    command = ("mlflow", "run", ".", "-e", "train_cnn", "--env-manager", "local")
    weights = project.folder / "models" / "cnn" / "weights.safetensors"
    trained, changes = weights.read_bytes(), project.changes()
    weights.unlink()
    alone = execute(project, *command)
    assert (weights.read_bytes(), project.changes()) == (trained, changes)
    assert list(alone.stages) == ["train_cnn"]
    assert alone.parent.data.tags["mlflow.project.entryPoint"] == "train_cnn"


def test_the_pipeline_as_an_mlflow_project_hangs_under_its_run(project, first):
    sources = f"dataset.sources={other_sources(project, '/two')}"
    change_params(project.folder, sources, "generate_samples.seed=2")
    whole = execute(project, "mlflow", "run", ".", "--env-manager", "local")
    ran = ["download", "generate_samples"]
    assert sorted(executed(whole.output)) == whole.ran == ran
    check_whole(project, whole.parent, whole.stages, ran)
    tags = whole.parent.data.tags
    assert tags["mlflow.project.entryPoint"] == "main"
    assert tags["diptych.preset"] == "custom"
    assert {key for key in first.parent.data.tags if key.startswith("diptych.")} <= {*tags}
    assert whole.parent.data.params["generate_samples.seed"] == "2"


def test_without_a_server_all_is_recorded_at_the_projects_root(project, first):
    """Also by an experiment in a temporary folder, and under another name."""
    with added_runs(project.store) as added:
        here = execute(
            project,
            *("dvc", "exp", "run", "--temp", "-S", "generate_samples.seed=5"),
            store=project.own_store,
            MLFLOW_TRACKING_URI="",
            MLFLOW_EXPERIMENT_NAME="named",
        )
    assert added == []
    assert here.ran == ["generate_samples"]
    places = {run.info.artifact_uri for run in (here.parent, *here.stages.values())}
    root = f"file://{project.folder}/mlartifacts/named/"
    assert all(place.startswith(root) for place in places)
    assert list(project.folder.rglob("mlflow.db")) == [project.folder / "mlflow.db"]
    assert list(project.folder.rglob("mlartifacts")) == [project.folder / "mlartifacts"]
    # It knows none of the runs that made the files, so all that these hold is logged again.
    assert set(here.stages) == set(STAGES)
    made = {
        run.data.tags["diptych.fingerprint"]: run
        for run in runs_in(project.store)
        if REUSED not in run.data.tags and "diptych.fingerprint" in run.data.tags
    }
    for name in set(STAGES) - {"generate_samples"}:
        again = here.stages[name]
        assert again.data.tags[AGAIN_TAG] == "true"
        maker = made[again.data.tags["diptych.fingerprint"]]
        assert again.data.params == maker.data.params
        assert inputs_of(again) == inputs_of(maker)
        assert points_of(project.own_store, again) == points_of(project.store, maker)
        assert files_of(project.own_store, again) == files_of(project.store, maker)
        assert weights_of(project.own_store, again) == weights_of(project.store, maker)


def points_of(store: str, run: "Run") -> dict[str, list[tuple[int, float]]]:
    """Every figure at every step."""
    client = client_of(store)
    return {
        key: [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, key)]
        for key in run.data.metrics
    }


def files_of(store: str, run: "Run") -> set[str]:
    """Artifacts, but for the pictures of epochs, of which there are no files."""
    client, folders, found = client_of(store), [""], set()
    while folders:
        for file in client.list_artifacts(run.info.run_id, folders.pop()):
            if file.is_dir:
                folders.append(file.path)
            else:
                found.add(re.split("[+%]timestamp", file.path)[0])
    return {
        path for path in found if "reconstructions" not in path or run.info.run_name != "train_vae"
    }


def weights_of(store: str, run: "Run") -> list[str]:
    client = client_of(store)
    return [client.get_logged_model(model).tags["weights_sha256"] for model in models_of(run)]


# The quickest stage stands for all of them: what it tells goes the same way.
AGAIN = ("dvc", "repro", "--force", "--single-item", "preprocess")


def test_switched_off_a_stage_runs_and_makes_no_store(project, first):
    store = project.folder.parent / "unused.db"
    variables = {"DIPTYCH_TRACKING": "off", "MLFLOW_TRACKING_URI": f"sqlite:///{store}"}
    with added_runs(project.store) as added:
        output = project.run(*AGAIN, **variables)
    assert executed(output) == ["preprocess"]
    assert added == []
    assert not store.exists()
    assert not store.with_name("mlartifacts").exists()


def test_a_dead_server_costs_one_line_and_no_stage(project, first):
    address = f"http://127.0.0.1:{free_port()}"
    before = project.changes()
    output = project.run(*AGAIN, MLFLOW_TRACKING_URI=address)
    assert executed(output) == ["preprocess"]
    (warning,) = [line for line in output.splitlines() if "warning" in line.lower()]
    assert warning.startswith(f"warning: tracking to {address} stopped (")
    assert warning.endswith("; the stage goes on")
    assert project.changes() == before
