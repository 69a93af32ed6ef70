"""Stages that an execution did not run: found as DVC finds them, told once, linked or from files.

A small DVC project and a real store. That it holds for whole executions, tests/test_pipeline.py
shows.
"""

import itertools
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from diptych.params import dotted, read_yaml
from diptych.tracking.completion import Execution, tell_skipped_stages
from diptych.tracking.dvc_cache import DvcCache
from diptych.tracking.events import Event, ParentRun, RunEnded, RunStarted
from diptych.tracking.outputs import log_epochs, log_outputs
from diptych.tracking.params_file import log_params_file
from diptych.tracking.pipeline import chosen_params, finished_stages, read_stages
from diptych.tracking.provenance import stage_fingerprint
from diptych.tracking.recorder import MlflowRecorder, prepare_mlflow
from diptych.tracking.recording import Recorder, journals_in, record_journals
from diptych.tracking.snapshot import Snapshot, copy_pipeline
from diptych.tracking.store import DATABASE_FILE, find_store
from diptych.tracking.tracker import EventTracker

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PIPELINE = """\
stages:
  split:
    cmd: python code/split.py --parts data/parts
    deps: [code/split.py]
    params: [split]
    outs: [data/parts]
  train_cnn:
    cmd: python code/train.py --model models/cnn --metrics metrics/train.json --curves plots/t.csv
    deps: [code/train.py, library, data/parts/train, data/parts/about.json]
    params: [train.rate]
    outs: [models/cnn]
    metrics: [{metrics/train.json: {cache: false}}]
    plots: [{plots/t.csv: {cache: false}}]
  evaluate:
    cmd: python code/evaluate.py --metrics metrics/evaluate.json --evaluation evaluation
    deps: [code/evaluate.py, models/cnn, data/parts/test]
    outs: [evaluation]
    metrics: [{metrics/evaluate.json: {cache: false}}]
"""
PARAMS = "split: {seed: 1}\ntrain: {rate: 0.5, unused: 1}\n"
HEADER = """\
from pathlib import Path

def write(path, text):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)

"""
CODE = {
    "code/split.py": """\
seed = Path("params.yaml").read_text().split("seed: ")[1][0]
write("data/parts/train/a.txt", "train")
write("data/parts/train/deep/b.txt", "train")
write("data/parts/test/a.txt", seed)
write("data/parts/about.json", "{}")
""",
    "code/train.py": """\
write("models/cnn/weights.safetensors", "weights")
write("models/cnn/model.json", '''{
    "family": "cnn", "image_shape": [1, 3, 4], "best_epoch": 2, "weights_sha256": "abc",
    "description_sha256": "def"
}''')
write("metrics/train.json", '{"accuracy": 0.75}')
write("plots/t.csv", "epoch,loss_nats\\n1,0.5\\n2,0.25\\n")
""",
    "code/evaluate.py": """\
write("evaluation/picture.png", "png")
write("metrics/evaluate.json", '{"cnn": {"accuracy": 0.5}}')
""",
}
STAGES = ["split", "train_cnn", "evaluate"]


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small DVC project after `dvc repro`, with a commit. Not to change."""
    folder = tmp_path_factory.mktemp("dvc") / "project"
    for name, text in CODE.items():
        write(folder / name, HEADER + text)
    write(folder / "library" / "one.py", "")
    write(folder / "library" / "inner" / "two.py", "")
    write(folder / "dvc.yaml", PIPELINE)
    write(folder / "params.yaml", PARAMS)
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "init", "--quiet")
    run(folder, "dvc", "repro", "--quiet")
    identity = ("-c", "user.name=Tester", "-c", "user.email=tester@localhost")
    run(folder, "git", "add", "--all")
    run(folder, "git", *identity, "commit", "--quiet", "--message", "The project")
    return folder


@pytest.fixture
def project(reproduced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the small project."""
    for name in ("site_cache", "global_config", "system_config"):
        monkeypatch.setenv(f"DVC_{name.upper()}_DIR", str(tmp_path / name))
    return shutil.copytree(reproduced, tmp_path / "project", symlinks=True)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def run(folder: Path, *command: str) -> None:
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {
        f"DVC_{name.upper()}_DIR": str(folder.parent / name)
        for name in ("site_cache", "global_config", "system_config")
    }
    environment = os.environ | settings | {"PATH": programs}
    subprocess.run(command, cwd=folder, env=environment, check=True, timeout=120)


def replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return apply


def lock_another_part(folder: Path) -> None:
    """What train_cnn was locked with becomes another part of the same output."""
    head, body = (folder / "dvc.lock").read_text().split("  train_cnn:\n")
    other = body.replace("path: data/parts/train", "path: data/parts/test", 1)
    assert other != body
    (folder / "dvc.lock").write_text(f"{head}  train_cnn:\n{other}")


def retrain(folder: Path) -> None:
    replace("code/train.py", '"weights")', '"others")')(folder)
    run(folder, "dvc", "repro", "--quiet", "train_cnn")


CHANGES: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "nothing": (lambda _: None, STAGES),
    "a param": (replace("params.yaml", "rate: 0.5", "rate: 0.25"), ["split", "evaluate"]),
    "the form of a param": (replace("params.yaml", "rate: 0.5", "rate: 5.0e-1"), STAGES),
    "a param of no stage": (replace("params.yaml", "unused: 1", "unused: 2"), STAGES),
    "a space in a command": (replace("dvc.yaml", "evaluate.py --", "evaluate.py  --"),
                             ["split", "train_cnn"]),
    "an option": (replace("dvc.yaml", "split.py --parts", "split.py --x --parts"),
                  ["train_cnn", "evaluate"]),
    "code": (replace("code/evaluate.py", "\n", "\n#\n"), ["split", "train_cnn"]),
    "a library": (lambda folder: write(folder / "library/inner/two.py", "#"),
                  ["split", "evaluate"]),
    "a new file in a library": (lambda folder: write(folder / "library/three.py", ""),
                                ["split", "evaluate"]),
    "a missing file": (lambda folder: (folder / "code/train.py").unlink(), ["split", "evaluate"]),
    "what lies within an output": (lock_another_part, ["split", "evaluate"]),
    "the stage above": (retrain, ["split", "train_cnn"]),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_a_stage_is_finished_where_dvc_says_that_it_is_up_to_date(what: str, project: Path) -> None:
    apply, expected = CHANGES[what]
    apply(project)
    copy = project.parent / "copy"
    copy_pipeline(project, copy)
    finished = finished_stages(copy, DvcCache(project))
    assert [stage.name for stage in finished] == expected == up_to_date_for_dvc(project)


def up_to_date_for_dvc(folder: Path) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from dvc.repo import Repo

        with Repo(str(folder)) as repo:
            changed = {stage.rpartition(":")[2] for stage in repo.status()}
    return [stage for stage in STAGES if stage not in changed]


def test_a_stage_names_its_outputs_by_its_options(project: Path) -> None:
    stages = {stage.name: stage for stage in read_stages(project / "dvc.yaml")}
    assert stages["train_cnn"].options == {
        "model": "models/cnn",
        "metrics": "metrics/train.json",
        "curves": "plots/t.csv",
    }
    assert stages["train_cnn"].outs["models/cnn"]
    assert not stages["train_cnn"].outs["metrics/train.json"]


def test_the_fingerprint_of_a_finished_stage_is_that_of_its_run(project: Path) -> None:
    params = dotted(read_yaml(project / "params.yaml"))
    for stage in finished_stages(project, DvcCache(project)):
        chosen = chosen_params(params, stage.description.params)
        assert stage.fingerprint == stage_fingerprint(project, stage.name, chosen)
        assert stage.fingerprint is not None


def test_a_snapshot_outlives_its_folder(project: Path) -> None:
    workspace = project.parent / "workspace"
    shutil.copytree(project, workspace)
    lock = (workspace / "dvc.lock").read_bytes()
    (workspace / "dvc.lock").unlink()
    snapshot = Snapshot(workspace, project.parent / "snapshot")
    snapshot.refresh()
    assert (snapshot.copy / "library/inner/two.py").exists()
    assert not (snapshot.copy / "data").exists()
    (workspace / "dvc.lock").write_bytes(lock)
    write(workspace / "metrics/train.json", "{}")
    # What a folder that is being deleted lacks is not taken away from the snapshot.
    shutil.rmtree(workspace / "library")
    (workspace / "metrics/evaluate.json").unlink()
    snapshot.refresh()
    shutil.rmtree(workspace)
    snapshot.refresh()
    assert (snapshot.copy / "dvc.lock").read_bytes() == lock
    assert (snapshot.copy / "metrics/train.json").read_text() == "{}"
    assert (snapshot.copy / "metrics/evaluate.json").exists()
    finished = finished_stages(snapshot.copy, DvcCache(project))
    assert [stage.name for stage in finished] == STAGES


@pytest.mark.parametrize("seen", ["never", "before the stages"])
def test_what_a_snapshot_missed_is_taken_from_the_experiments_commit(
    project: Path, seen: str
) -> None:
    workspace = project.parent / "workspace"
    snapshot = Snapshot(workspace, project.parent / "snapshot")
    if seen != "never":
        shutil.copytree(project, workspace)
        (workspace / "dvc.lock").unlink()
        snapshot.refresh()
        shutil.rmtree(workspace)
    run(project, "git", "update-ref", "refs/exps/ab/cdef/wet-name", "HEAD")
    environment = {"DVC_EXP_BASELINE_REV": "abcdef", "DVC_EXP_NAME": "wet-name"}
    snapshot.finish(project, {})
    assert not (snapshot.copy / "dvc.lock").exists()
    snapshot.finish(project, environment)
    finished = finished_stages(snapshot.copy, DvcCache(project))
    assert [stage.name for stage in finished] == STAGES


class Executions:
    """Executions of a project's pipeline, recorded in its store."""

    def __init__(self, project: Path, database: Path) -> None:
        self.project = project
        self._clock_ms = itertools.count(1)
        self.use(database, project)

    def use(self, database: Path, folder: Path) -> None:
        """Record in a new store in a folder from now on."""
        folder.mkdir(exist_ok=True)
        shutil.copy(database, folder / DATABASE_FILE)
        uri = f"sqlite:///{folder / DATABASE_FILE}"
        self.store = find_store(folder, {"MLFLOW_TRACKING_URI": uri})
        prepare_mlflow(self.store)

    @property
    def client(self) -> "MlflowClient":
        import mlflow

        return mlflow.MlflowClient(tracking_uri=self.store.uri)

    def run(self, key: str, *stages: str) -> Execution:
        """Execute: these stages run, and the rest is not told yet."""
        parent = ParentRun(None, key, f"execution {key}", {}, {})
        params = dotted(read_yaml(self.project / "params.yaml"))
        parents = set()
        for stage in [one for one in read_stages(self.project / "dvc.yaml") if one.name in stages]:
            recorder = MlflowRecorder(self.store, f"{key}-ran-{stage.name}")
            chosen = chosen_params(params, stage.params)
            tags = {
                "diptych.stage": stage.name,
                "diptych.fingerprint": stage_fingerprint(self.project, stage.name, chosen) or "",
                "diptych.preset": f"preset of {key}",
                "mlflow.source.git.commit": f"commit of {key}",
            }
            tracker = EventTracker(recorder.record)
            started_ms = next(self._clock_ms)
            recorder.record(RunStarted(stage.name, tags, parent, started_ms))
            tracker.log_params(chosen)
            file = self.project / "params.yaml"
            log_params_file(tracker, file, read_yaml(file))
            outs = {name: self.project / path for name, path in stage.options.items()}
            if "curves" in outs:
                log_epochs(tracker, outs["curves"])
            log_outputs(tracker, stage.name, outs)
            recorder.record(RunEnded("FINISHED", started_ms + 9))
            parents.add(recorder.parent_run_id)
        (parent_run_id,) = parents
        assert parent_run_id is not None
        folder = self.project / ".diptych" / "tracking" / key
        snapshot = Snapshot(self.project, folder / "snapshot")
        snapshot.finish(self.project, {})
        return Execution(
            parent_run_id, self.store, folder, snapshot.copy, self.project, self.project
        )

    def record(
        self, execution: Execution, wrap: Callable[[Recorder], Recorder] | None = None
    ) -> None:
        def recorder_of(journal: str) -> Recorder:
            recorder = MlflowRecorder(self.store, journal)
            return wrap(recorder) if wrap else recorder

        record_journals(execution.folder, recorder_of, lambda: True)

    def complete(self, execution: Execution) -> "dict[str, Run]":
        """Tell the stages that did not run; return all runs under the execution's."""
        tell_skipped_stages(execution)
        self.record(execution)
        assert journals_in(execution.folder) == []
        return self.children(execution)

    def children(self, execution: Execution) -> "dict[str, Run]":
        own = self.client.get_run(execution.parent_run_id)
        condition = f"tags.`mlflow.parentRunId` = '{execution.parent_run_id}'"
        runs = self.client.search_runs([own.info.experiment_id], condition)
        by_name = {str(one.info.run_name): one for one in runs}
        assert len(by_name) == len(runs)
        assert {one.info.status for one in (own, *runs)} == {"FINISHED"}
        return by_name

    def metrics_of_parent(self, execution: Execution) -> dict[str, float]:
        metrics: dict[str, float] = self.client.get_run(execution.parent_run_id).data.metrics
        return metrics


@pytest.fixture
def executions(project: Path, empty_database: Path) -> Executions:
    return Executions(project, empty_database)


def reused(runs: "dict[str, Run]") -> dict[str, str]:
    tag = "diptych.reused_run_id"
    return {name: one.data.tags[tag] for name, one in runs.items() if tag in one.data.tags}


def logged_again(runs: "dict[str, Run]") -> list[str]:
    return [name for name, one in runs.items() if one.data.tags.get("diptych.logged_again")]


def model_ids(one: "Run") -> Sequence[str]:
    return [model.model_id for model in one.outputs.model_outputs] if one.outputs else []


def test_what_did_not_run_links_to_the_runs_that_made_it(executions: Executions) -> None:
    first = executions.complete(executions.run("first", *STAGES))
    assert reused(first) == {}
    second = executions.run("second", "split")
    runs = executions.complete(second)
    made = {name: first[name].info.run_id for name in ("train_cnn", "evaluate")}
    assert reused(runs) == made
    for name in made:
        link, maker = runs[name], first[name]
        assert link.data.params == maker.data.params
        assert link.data.metrics == maker.data.metrics
        assert model_ids(link) == model_ids(maker)
        assert link.data.tags["diptych.fingerprint"] == maker.data.tags["diptych.fingerprint"]
        # The code is that of the run that made the files, the rest that of this execution.
        assert link.data.tags["mlflow.source.git.commit"] == "commit of first"
        assert link.data.tags["diptych.preset"] == "preset of second"
        address = f"#/experiments/{maker.info.experiment_id}/runs/{maker.info.run_id}"
        assert address in link.data.tags["mlflow.note.content"]
    assert len(model_ids(runs["train_cnn"])) == 1
    assert executions.metrics_of_parent(second) == {"cnn.accuracy": 0.5}
    third = executions.complete(executions.run("third", "evaluate"))
    assert reused(third)["train_cnn"] == made["train_cnn"]  # not the link of the second


def test_a_link_prefers_a_run_of_committed_code_and_then_the_oldest(
    executions: Executions,
) -> None:
    def run(key: str, is_dirty: bool, *stages: str) -> "dict[str, Run]":
        runs = executions.children(executions.run(key, *stages))
        for one in runs.values():
            tag = "diptych.git_dirty", str(is_dirty).lower()
            executions.client.set_tag(one.info.run_id, *tag)
        return runs

    first = run("first", True, *STAGES)
    second = run("second", False, "train_cnn")
    run("third", False, "train_cnn")
    links = reused(executions.complete(executions.run("fourth", "split")))
    assert links == {
        "train_cnn": second["train_cnn"].info.run_id,
        "evaluate": first["evaluate"].info.run_id,
    }


def test_telling_again_changes_nothing(executions: Executions) -> None:
    executions.run("first", *STAGES)
    second = executions.run("second", "split")
    before = {name: one.to_dictionary() for name, one in executions.complete(second).items()}
    after = {name: one.to_dictionary() for name, one in executions.complete(second).items()}
    assert before == after


class Died(BaseException):
    """What a kill looks like from inside."""


class Mortal:
    """Records and dies after each event once, before that can be noted."""

    def __init__(self, recorder: Recorder, died_after: list[Event]) -> None:
        self._recorder = recorder
        self._died_after = died_after

    def record(self, event: Event, again: bool) -> None:
        self._recorder.record(event, again)
        if event not in self._died_after:
            self._died_after.append(event)
            raise Died


def test_recorders_that_die_after_every_event_tell_the_same_once(executions: Executions) -> None:
    first = executions.run("first", *STAGES)
    executions.client.delete_run(executions.children(first)["split"].info.run_id)
    whole = executions.complete(executions.run("whole", "evaluate"))
    executions.client.delete_run(whole["split"].info.run_id)
    broken = executions.run("broken", "evaluate")
    died_after: list[Event] = []
    for _ in range(100):
        with suppress(Died):
            tell_skipped_stages(broken)
            executions.record(broken, lambda recorder: Mortal(recorder, died_after))
            break
    runs = executions.children(broken)
    assert len(died_after) == 3 + 4  # a link; a stage of params and nothing else to tell
    assert set(runs) == set(whole) == set(STAGES)
    assert logged_again(runs) == logged_again(whole) == ["split"]
    for name in STAGES:
        assert runs[name].data.metrics == whole[name].data.metrics
        assert runs[name].data.params == whole[name].data.params
        assert len(model_ids(runs[name])) == len(model_ids(whole[name]))


def history(executions: Executions, one: "Run") -> dict[str, list[tuple[int, float]]]:
    return {
        key: [
            (point.step, point.value)
            for point in executions.client.get_metric_history(one.info.run_id, key)
        ]
        for key in one.data.metrics
    }


def artifacts(executions: Executions, one: "Run", folder: str = "") -> list[str]:
    found = executions.client.list_artifacts(one.info.run_id, folder)
    return [path for file in found for path in (
        artifacts(executions, one, file.path) if file.is_dir else [file.path]
    )]  # fmt: skip


def check_logged_again(executions: Executions, one: "Run", maker: "Run") -> None:
    assert one.data.tags["diptych.fingerprint"] == maker.data.tags["diptych.fingerprint"]
    assert one.data.params == maker.data.params
    assert history(executions, one) == history(executions, maker)
    assert artifacts(executions, one) == artifacts(executions, maker)
    assert len(model_ids(one)) == len(model_ids(maker))


def test_a_run_that_is_gone_is_logged_again_once_and_then_linked_to(
    executions: Executions,
) -> None:
    first = executions.children(executions.run("first", *STAGES))
    for name in ("train_cnn", "evaluate"):
        executions.client.delete_run(first[name].info.run_id)
    second = executions.run("second", "split")
    runs = executions.complete(second)
    assert reused(runs) == {}
    assert sorted(logged_again(runs)) == ["evaluate", "train_cnn"]
    for name in logged_again(runs):
        check_logged_again(executions, runs[name], first[name])
        assert runs[name].data.tags["mlflow.source.git.commit"] == "commit of second"
    assert executions.metrics_of_parent(second) == {"cnn.accuracy": 0.5}
    third = executions.complete(executions.run("third", "split"))
    assert reused(third) == {name: runs[name].info.run_id for name in ("train_cnn", "evaluate")}


def test_in_another_store_all_is_logged_again_from_the_cache(
    executions: Executions, empty_database: Path, tmp_path: Path
) -> None:
    first = executions.children(executions.run("first", *STAGES))
    old = Executions.__new__(Executions)
    old.project, old.store = executions.project, executions.store
    executions.use(empty_database, tmp_path / "elsewhere")
    second = executions.run("second", "split")
    workspace_is_gone = tmp_path / "nowhere"
    runs = executions.complete(
        Execution(
            second.parent_run_id,
            second.store,
            second.folder,
            second.snapshot,
            workspace_is_gone,
            second.root,
        )
    )
    assert sorted(logged_again(runs)) == ["evaluate", "train_cnn"]
    check_copies(executions, runs["train_cnn"], old, first["train_cnn"])
    (model_id,) = model_ids(runs["train_cnn"])
    assert executions.client.get_logged_model(model_id).tags["weights_sha256"] == "abc"


def check_copies(here: Executions, one: "Run", there: Executions, maker: "Run") -> None:
    assert history(here, one) == history(there, maker)
    assert artifacts(here, one) == artifacts(there, maker)


def test_a_stage_that_is_not_up_to_date_has_no_row(executions: Executions) -> None:
    executions.run("first", *STAGES)
    retrain(executions.project)
    second = executions.run("second", "train_cnn")
    runs = executions.complete(second)
    assert set(runs) == {"split", "train_cnn"}
    assert executions.metrics_of_parent(second) == {}


def test_only_a_finished_run_is_linked_to(executions: Executions) -> None:
    first = executions.children(executions.run("first", *STAGES))
    executions.client.set_terminated(first["train_cnn"].info.run_id, "FAILED")
    runs = executions.complete(executions.run("second", "split"))
    assert logged_again(runs) == ["train_cnn"]
    assert set(reused(runs)) == {"evaluate"}


@pytest.mark.parametrize("is_intact", [True, False])
def test_an_output_that_dvc_has_not_kept_is_found_in_the_workspace_if_it_is_the_same(
    is_intact: bool, executions: Executions
) -> None:
    project = executions.project
    first = executions.children(executions.run("first", *STAGES))
    executions.client.delete_run(first["evaluate"].info.run_id)
    second = executions.run("second", "split")
    md5 = read_yaml(project / "dvc.lock")["stages"]["evaluate"]["outs"][0]["md5"]
    (project / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]).unlink()
    if not is_intact:
        write(project / "evaluation" / "picture.png", "another")
    runs = executions.complete(second)
    assert logged_again(runs) == (["evaluate"] if is_intact else [])
    assert set(reused(runs)) == {"train_cnn"}
    if is_intact:
        check_logged_again(executions, runs["evaluate"], first["evaluate"])


def test_without_a_pipeline_there_is_nothing_to_tell(executions: Executions) -> None:
    execution = executions.run("only", "split")
    shutil.rmtree(execution.snapshot)
    assert set(executions.complete(execution)) == {"split"}


def test_what_a_dead_recorder_left_half_written_is_written_anew(executions: Executions) -> None:
    executions.run("first", *STAGES)
    second = executions.run("second", "split")
    half = second.folder / "unfinished" / second.journal_of("evaluate").name
    write(half / "events.jsonl", '{"journal": 1}\n')
    assert set(reused(executions.complete(second))) == {"train_cnn", "evaluate"}
    assert [path.name for path in second.folder.iterdir()] == ["snapshot"]
