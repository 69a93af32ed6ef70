"""From a journal to a store: in order, once, whatever fails or dies in between."""

import re
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from diptych.checkpoints import save_model
from diptych.reports.grids import picture_png
from diptych.tracking.events import (
    INCOMPLETE_TAG,
    ArtifactLogged,
    Event,
    FigureLogged,
    ImageLogged,
    MetricsLogged,
    ModelLogged,
    ParamsLogged,
    ParentRun,
    RunEnded,
    RunStarted,
    SummaryLogged,
    TableLogged,
    TagsSet,
)
from diptych.tracking.journal import Journal
from diptych.tracking.recorder import MlflowRecorder, prepare_mlflow
from diptych.tracking.recording import (
    Recording,
    RefusedError,
    failure_of,
    forget_failure,
    is_recorded,
    note_told,
    open_journals,
    record_journals,
    take_refusal,
    untold_failures,
)
from diptych.tracking.store import find_store

START = RunStarted("stage", {}, None, 0)
END = RunEnded("FINISHED", 9)


def named(*names: str) -> list[TagsSet]:
    return [TagsSet({name: ""}) for name in names]


class Recorded:
    """A recorder into a list; fails on the tags that it is told to fail on."""

    def __init__(self, *fails_on: str) -> None:
        self.events: list[Event] = []
        self.again: list[Event] = []
        self._fails_on = set(fails_on)

    def record(self, event: Event, again: bool) -> None:
        if isinstance(event, TagsSet) and self._fails_on & set(event.tags):
            raise OSError("https://me:hunter2@host said no")
        self.events.append(event)
        if again:
            self.again.append(event)


def written(folder: Path, *events: Event) -> Path:
    journal = Journal(folder, {})
    for event in events:
        journal.append(event)
    journal.close()
    return folder


def test_a_journal_is_recorded_in_order_as_it_grows_and_then_deleted(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run", {})
    recorder = Recorded()
    recording = Recording(tmp_path / "run", recorder)
    events: list[Event] = [START, *named("a", "b"), END]
    for number, event in enumerate(events, start=1):
        journal.append(event)
        assert not is_recorded(tmp_path / "run")
        assert recording.advance() == (event is not END)
        assert recorder.events == events[:number]
    journal.close()
    assert is_recorded(tmp_path / "run")
    assert recorder.again == []
    assert list(tmp_path.iterdir()) == []


def test_a_failure_ends_the_recording_but_the_end_of_the_run_is_tried(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", START, *named("a", "b", "c", "b"), END)
    recorder = Recorded("b")
    assert not Recording(folder, recorder).advance()
    assert recorder.events == [START, *named("a"), END]
    assert failure_of(folder) == "OSError: https://***@host said no"
    assert not is_recorded(folder)


class Refusing(Recorded):
    """A recorder whose store never takes some tags."""

    def record(self, event: Event, again: bool) -> None:
        try:
            super().record(event, again)
        except OSError as error:
            raise RefusedError from error


def test_an_event_that_the_store_refuses_is_lost_alone_and_the_run_says_so(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", START, *named("a", "b", "c"), END)
    recorder = Refusing("b")
    assert not Recording(folder, recorder).advance()
    first, second, incomplete, *rest = recorder.events
    assert [first, second, *rest] == [START, *named("a", "c"), END]
    reason = "TagsSet was refused (OSError: https://***@host said no)"
    assert incomplete == TagsSet({INCOMPLETE_TAG: reason})
    assert is_recorded(folder)
    assert [take_refusal(folder), take_refusal(folder)] == [reason, None], "told once"


def test_a_run_that_the_store_refuses_stays(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", START, *named("a"), END)
    assert not Recording(folder, Refusing("a", INCOMPLETE_TAG)).advance()
    assert failure_of(folder) == "OSError: https://***@host said no"
    assert not is_recorded(folder)


def test_what_a_failure_left_is_recorded_later_from_there_on(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", START, *named("a", "b", "c"), END)
    Recording(folder, Recorded("b")).advance()
    later = Recorded()
    assert not Recording(folder, later).advance()
    # The run's start says which run it is; whether "b" came through is not known.
    assert later.events == [START, *named("b", "c"), END]
    assert later.again == [START, *named("b")]
    assert is_recorded(folder)


def test_a_run_recorded_to_its_end_before_its_journal_could_be_deleted_is_ended_again(
    tmp_path: Path, empty_database: Path
) -> None:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    store = find_store(tmp_path, {})
    prepare_mlflow(store)
    parent = ParentRun(None, "key", "pipeline", {}, {})
    events: list[Event] = [RunStarted("stage", {}, parent, 1), *named("a"), END]
    folder = written(tmp_path / "run", *events)
    dead = MlflowRecorder(store, "run")
    for event in events:
        dead.record(event)
    (folder / "offset").write_text(str((folder / "events.jsonl").stat().st_size))
    before = contents(tmp_path)
    assert {run["status"] for run in before} == {"FINISHED"}
    assert not Recording(folder, MlflowRecorder(store, "run")).advance()
    assert is_recorded(folder)
    assert contents(tmp_path) == before


def test_a_journal_of_another_version_fails_and_stays(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", START, END)
    path = folder / "events.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"journal": 1', b'"journal": 2'))
    recorder = Recorded()
    assert not Recording(folder, recorder).advance()
    assert recorder.events == [END]
    assert (failure_of(folder) or "").startswith("JournalError: ")


@pytest.mark.parametrize("offset", ["", "\0\0", "1e3"])
def test_where_an_offset_is_damaged_every_event_is_in_doubt(tmp_path: Path, offset: str) -> None:
    folder = written(tmp_path / "run", START, *named("a", "b"), END)
    (folder / "offset").write_text(offset)
    recorder = Recorded()
    assert not Recording(folder, recorder).advance()
    assert recorder.events == recorder.again == [START, *named("a", "b"), END]
    assert is_recorded(folder)


@pytest.mark.parametrize("events", [[], [START], [START, *named("a")]])
def test_a_run_whose_writer_was_killed_ends_as_killed(tmp_path: Path, events: list[Event]) -> None:
    before = time.time_ns() // 1_000_000
    folder = written(tmp_path / "run", *events)
    recorder = Recorded()
    assert not Recording(folder, recorder).advance()
    *found, end = recorder.events
    assert found == events
    assert isinstance(end, RunEnded)
    assert end.status == "KILLED"
    assert before <= end.time_ms <= time.time_ns() // 1_000_000
    assert is_recorded(folder)


def test_all_journals_of_a_folder_are_recorded_also_those_that_come(tmp_path: Path) -> None:
    recorders: dict[str, Recorded] = {}
    over = threading.Event()

    def recorder_of(journal: str) -> Recorded:
        recorders[journal] = Recorded("b") if journal == "2" else Recorded()
        return recorders[journal]

    written(tmp_path / "1", START, END)
    thread = threading.Thread(target=record_journals, args=(tmp_path, recorder_of, over.is_set))
    thread.start()
    written(tmp_path / "2", START, *named("b"), END)
    journal = Journal(tmp_path / "3", {})
    over.set()
    journal.append(START)
    journal.append(END)
    journal.close()
    thread.join(10)
    assert not thread.is_alive()
    record_journals(tmp_path, recorder_of, lambda: True)  # if it came too late for the thread
    assert {name: recorder.events for name, recorder in recorders.items()} == {
        name: [START, END] for name in "123"
    }
    assert open_journals(tmp_path) == []
    assert untold_failures(tmp_path) == [tmp_path / "2"]
    note_told(tmp_path / "2")
    assert untold_failures(tmp_path) == []


# What changes something in the store, of what the recorder calls or MLflow's client itself.
WRITING = {
    "create_experiment",
    "create_logged_model",
    "create_run",
    "finalize_logged_model",
    "log_artifact",
    "log_batch",
    "log_image",
    "log_model_artifacts",
    "log_outputs",
    "set_tag",
    "set_terminated",
    "update_run",
}


class Now:
    """A recorder that tells which kind of event it is at."""

    kind: type[Event]

    def __init__(self, recorder: MlflowRecorder) -> None:
        self._recorder = recorder

    def record(self, event: Event, again: bool) -> None:
        Now.kind = type(event)
        self._recorder.record(event, again)


def _lose_answers(
    patch: pytest.MonkeyPatch, client: type, name: str, lost: set[tuple[type[Event], str]]
) -> None:
    """Have a method of MLflow's client do its work and fail, once for each kind of event."""
    method = getattr(client, name)

    def do_and_fail(*arguments: Any, **options: Any) -> Any:
        answer = method(*arguments, **options)
        if (Now.kind, name) not in lost:
            lost.add((Now.kind, name))
            raise ConnectionError("the answer was lost")
        return answer

    patch.setattr(client, name, do_and_fail)


class Died(BaseException):
    """What a kill looks like from inside."""


class Mortal:
    """Records in MLflow and dies after each event once, before that can be noted."""

    def __init__(self, recorder: MlflowRecorder, died_after: list[Event]) -> None:
        self._recorder = recorder
        self._died_after = died_after

    def record(self, event: Event, again: bool) -> None:
        self._recorder.record(event, again)
        if event not in self._died_after:
            self._died_after.append(event)
            raise Died


def told(tmp_path: Path) -> list[Event]:
    """Every kind of event, as a stage of a pipeline tells them."""
    grey = picture_png(np.arange(12, dtype=np.uint8).reshape(3, 4, 1))
    (tmp_path / "note.txt").write_text("hello")
    pd.DataFrame({"x": [0, 1]}).to_parquet(tmp_path / "images.parquet")
    save_model(tmp_path / "cnn", {"w": torch.zeros(2)}, {"image_shape": [1, 3, 4]})
    parent = ParentRun(None, "key", "pipeline", {"a": "1"}, {})
    return [
        RunStarted("stage", {"t": "1"}, parent, 1),
        ParamsLogged({"a": "1"}),
        MetricsLogged({"loss": 0.5, "bad": float("nan")}, 1, 2),
        MetricsLogged({"loss": 0.25, "bad": float("nan")}, 2, 3),
        SummaryLogged({"accuracy": 0.75}, 4),
        TagsSet({"u": "2"}),
        ImageLogged("samples/prior", grey, 1, 5),
        ImageLogged("samples/prior", grey, 2, 6),
        FigureLogged("curves.png", grey),
        ArtifactLogged(str(tmp_path / "note.txt"), "folder"),
        TableLogged(str(tmp_path / "images.parquet"), "per_image"),
        ModelLogged(str(tmp_path / "cnn"), "cnn"),
        RunEnded("FINISHED", 7),
    ]


def client_of(root: Path) -> Any:
    import mlflow

    return mlflow.MlflowClient(tracking_uri=find_store(root, {}).uri)


def contents(root: Path) -> Any:
    """All that a store holds, without the ids and names that MLflow draws."""
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}")
    found = client.get_experiment_by_name("diptych")
    assert found is not None
    models = client.search_logged_models([found.experiment_id])
    return [
        {
            "name": run.info.run_name,
            "status": run.info.status,
            "times": (run.info.start_time, run.info.end_time),
            "params": run.data.params,
            "metrics": {
                key: [
                    (point.step, point.timestamp, repr(point.value))
                    for point in client.get_metric_history(run.info.run_id, key)
                ]
                for key in run.data.metrics
            },
            "tags": sorted(run.data.tags),
            "artifacts": artifacts_of(Path(run.info.artifact_uri.removeprefix("file://"))),
            "models": [
                (model.name, model.status, artifacts_of(Path(model.artifact_location[7:])))
                for model in models
                if model.source_run_id == run.info.run_id
            ],
            "outputs": len(run.outputs.model_outputs) if run.outputs else 0,
        }
        for run in sorted(
            client.search_runs([found.experiment_id]), key=lambda run: str(run.info.run_name)
        )
    ]


def artifacts_of(folder: Path) -> list[tuple[str, int]]:
    """Names, without an image's random part, and sizes; of a model, what names its run has none."""
    return sorted(
        (re.sub(r"[0-9a-f-]{36}", "", path.relative_to(folder).as_posix()), size)
        for path in folder.rglob("*")
        if path.is_file()
        for size in [0 if path.name == "MLmodel" else path.stat().st_size]
    )


def test_a_recorder_that_dies_after_every_event_leaves_no_doubles(
    tmp_path: Path, empty_database: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    events = told(tmp_path)

    def recorder_in(root: Path) -> MlflowRecorder:
        return MlflowRecorder(find_store(root, {}), "journal")

    for root in (whole, broken):
        root.mkdir()
        shutil.copy(empty_database, root / "mlflow.db")
        prepare_mlflow(find_store(root, {}))
        written(root / "journal", *events)
    assert not Recording(whole / "journal", recorder_in(whole)).advance()
    assert failure_of(whole / "journal") is None

    died_after: list[Event] = []
    while not is_recorded(broken / "journal"):
        with suppress(Died):
            Recording(broken / "journal", Mortal(recorder_in(broken), died_after)).advance()
        assert failure_of(broken / "journal") is None
    assert [type(event) for event in died_after] == [type(event) for event in events]
    assert contents(broken) == contents(whole)
    assert [run["name"] for run in contents(whole)] == ["pipeline", "stage"]


def test_an_execution_sums_up_what_its_stages_cost(tmp_path: Path, empty_database: Path) -> None:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    store = find_store(tmp_path, {})
    prepare_mlflow(store)
    seconds, memory, gpu_memory = (
        f"diptych.{name}" for name in ("seconds", "peak_memory_mib", "peak_gpu_memory_mib")
    )
    on_a_cpu: dict[str, str] = {seconds: "1.50", memory: "900"}
    on_a_gpu = {seconds: "2.25", memory: "1000", gpu_memory: "3072"}
    on_it_again = {seconds: "1.25", memory: "800", gpu_memory: "512"}

    def summary(stages: list[dict[str, str]], execution: str) -> dict[str, str]:
        parent = ParentRun(None, execution, "pipeline", {}, {})
        for i, tags in enumerate(stages):
            name = f"{execution}-{i}"
            start = RunStarted("stage", {}, parent, 1)
            folder = written(tmp_path / name, start, TagsSet(tags), END)
            recorder = MlflowRecorder(store, name)
            Recording(folder, recorder).advance()
        found = client_of(tmp_path).get_run(recorder.parent_run_id).data.tags
        return {tag: found[tag] for tag in (seconds, memory, gpu_memory) if tag in found}

    assert summary([on_a_cpu, on_a_gpu, on_it_again], "mixed") == {
        seconds: "5.00",
        memory: "1000",
        gpu_memory: "3072",
    }
    assert summary([on_a_cpu], "without a GPU") == {seconds: "1.50", memory: "900"}


def test_what_mlflow_itself_refuses_is_lost_alone(tmp_path: Path, empty_database: Path) -> None:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    store = find_store(tmp_path, {})
    prepare_mlflow(store)
    told = [MetricsLogged({name: 1.0}, 0, 1) for name in ("a bad name?", "good")]
    folder = written(tmp_path / "run", START, *told, END)
    recorder = MlflowRecorder(store, "run")
    assert not Recording(folder, recorder).advance()
    assert failure_of(folder) is None
    run = client_of(tmp_path).get_run(recorder.run_id)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"good": 1.0})
    assert run.data.tags[INCOMPLETE_TAG].startswith("MetricsLogged was refused (MlflowException: ")


def test_what_is_for_a_deleted_run_waits_for_its_return(
    tmp_path: Path, empty_database: Path
) -> None:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    store = find_store(tmp_path, {})
    prepare_mlflow(store)
    journal, recorder = Journal(tmp_path / "run", {}), MlflowRecorder(store, "run")
    recording = Recording(tmp_path / "run", recorder)
    journal.append(START)
    assert recording.advance()
    client_of(tmp_path).delete_run(recorder.run_id)
    journal.append(MetricsLogged({"good": 1.0}, 0, 1))
    journal.append(END)
    journal.close()
    recording.advance()
    assert failure_of(tmp_path / "run") is not None
    client_of(tmp_path).restore_run(recorder.run_id)
    forget_failure(tmp_path / "run")
    Recording(tmp_path / "run", MlflowRecorder(store, "run")).advance()
    run = client_of(tmp_path).get_run(recorder.run_id)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"good": 1.0})
    assert INCOMPLETE_TAG not in run.data.tags


def test_a_store_whose_answers_are_lost_holds_the_same_in_the_end(
    tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    events = told(tmp_path)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for root in (whole, broken):
        root.mkdir()
        shutil.copy(empty_database, root / "mlflow.db")
        prepare_mlflow(find_store(root, {}))
        written(root / "journal", *events)
    Recording(whole / "journal", MlflowRecorder(find_store(whole, {}), "journal")).advance()

    lost: set[tuple[type[Event], str]] = set()
    with monkeypatch.context() as patch:
        for name in WRITING:
            _lose_answers(patch, mlflow.MlflowClient, name, lost)
        for _ in range(50):
            if is_recorded(broken / "journal"):
                break
            forget_failure(broken / "journal")
            recorder = Now(MlflowRecorder(find_store(broken, {}), "journal"))
            Recording(broken / "journal", recorder).advance()
    assert {name for _, name in lost} == WRITING
    assert contents(broken) == contents(whole)
