"""One contract, on memory, on a local store and on a server."""

import io
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from diptych.checkpoints import save_model
from diptych.images.arrays import DatasetDescription, SplitDescription
from diptych.reports.grids import picture_png
from diptych.tracking.dataset_inputs import log_dataset_input
from diptych.tracking.events import (
    ArtifactLogged,
    DatasetLogged,
    FigureLogged,
    ImageLogged,
    MetricsLogged,
    ModelLogged,
    ParamsLogged,
    ParentRun,
    SummaryLogged,
    TableLogged,
    TagsSet,
)
from diptych.tracking.mlflow_tracker import MlflowTracker
from diptych.tracking.store import find_store
from diptych.tracking.tracker import MemoryTracker, NullTracker, Tracker


@dataclass
class Record:
    """What can be read back of a run."""

    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    images: dict[tuple[str, int], list[Any]] = field(default_factory=dict)
    figures: dict[str, list[Any]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    tables: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    models: list[str] = field(default_factory=list)
    datasets: list[tuple[str, str, str, dict[str, int]]] = field(default_factory=list)


Opened = tuple[Tracker, Callable[[], Record]]


@contextmanager
def in_memory() -> Iterator[Opened]:
    tracker = MemoryTracker()
    yield tracker, lambda: read_memory(tracker)


def read_memory(tracker: MemoryTracker) -> Record:
    record = Record()
    for event in tracker.events:
        match event:
            case ParamsLogged():
                record.params |= event.params
            case MetricsLogged() | SummaryLogged():
                step = (event.step if isinstance(event, MetricsLogged) else 0) or 0
                for key, value in event.metrics.items():
                    record.metrics.setdefault(key, []).append((step, repr(value)))
            case TagsSet():
                record.tags |= event.tags
            case ImageLogged():
                record.images[event.key, event.step] = pixels(io.BytesIO(event.png))
            case FigureLogged():
                record.figures[event.path] = pixels(io.BytesIO(event.png))
            case ArtifactLogged():
                path = Path(event.path)
                name = f"{event.folder}/{path.name}" if event.folder else path.name
                record.files[name] = path.read_text()
            case TableLogged():
                frame = pd.read_parquet(event.path)
                record.tables[event.name] = {str(key): frame[key].tolist() for key in frame}
            case ModelLogged():
                record.models.append(event.name)
            case DatasetLogged():
                numbers = {f"num_{split}": number for split, number in event.num_images.items()}
                record.datasets.append((event.name, event.source, event.context, numbers))
                record.tags["diptych.dataset_sha256"] = event.sha256
    return record


@contextmanager
def in_mlflow(root: Path, uri: str | None, wait: Callable[[Path], None]) -> Iterator[Opened]:
    store = find_store(root, {"MLFLOW_TRACKING_URI": uri or "", "MLFLOW_EXPERIMENT_NAME": "a/b"})
    tracker = MlflowTracker(
        store, root, "contract", {"only": root.name}, parent=None, pipeline=None
    )

    def finish_and_read() -> Record:
        tracker.finish("FINISHED")
        wait(root)
        return read_mlflow(store.uri, "a/b", root)

    yield tracker, finish_and_read


def read_mlflow(uri: str, experiment: str, root: Path) -> Record:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    (run,) = client.search_runs([found.experiment_id])
    assert run.info.status == "FINISHED"
    record = Record(params=run.data.params, tags=run.data.tags)
    for key in run.data.metrics:
        history = client.get_metric_history(run.info.run_id, key)
        record.metrics[key] = [(metric.step, repr(metric.value)) for metric in history]
    downloaded = root / "downloaded"
    downloaded.mkdir()
    client.download_artifacts(run.info.run_id, "", str(downloaded))
    for path in sorted(downloaded.rglob("*")):
        name = path.relative_to(downloaded).as_posix()
        if match := re.fullmatch(r"images/(.+)\+step\+(\d+)\+timestamp\+\d+\+[\w-]+\.png", name):
            record.images[match[1].replace("~", "/"), int(match[2])] = pixels(path)
        elif path.suffix == ".png" and not name.startswith("images/"):
            record.figures[name] = pixels(path)
        elif path.suffix == ".json":
            table = json.loads(path.read_text())
            columns = map(list, zip(*table["data"], strict=True))
            record.tables[path.stem] = dict(zip(table["columns"], columns, strict=True))
        elif path.suffix == ".txt":
            record.files[name] = path.read_text()
    assert run.inputs is not None
    for one in run.inputs.dataset_inputs:
        profile = json.loads(one.dataset.profile or "")
        assert one.dataset.digest == run.data.tags["diptych.dataset_sha256"][:36]
        assert profile.pop("sha256") == run.data.tags["diptych.dataset_sha256"]
        assert profile.pop("num_rows") == sum(profile.values())
        context = {tag.key: tag.value for tag in one.tags}["mlflow.data.context"]
        source = json.loads(one.dataset.source)["uri"]
        record.datasets.append((one.dataset.name, source, context, profile))
    for model in client.search_logged_models([found.experiment_id]):
        assert model.status == "READY"
        record.models.append(model.name)
    return record


def pixels(file: Any) -> list[Any]:
    with Image.open(file) as image:
        values: list[Any] = np.asarray(image).tolist()
    return values


def description() -> DatasetDescription:
    def split(num_images: int) -> SplitDescription:
        digest = f"{num_images:064x}"
        return SplitDescription(num_images=num_images, images_sha256=digest, labels_sha256=digest)

    return DatasetDescription(
        name="stripes",
        class_names=("a", "b"),
        image_shape=(1, 3, 4),
        pixel_mean=(0.5,),
        pixel_standard_deviation=(0.25,),
        train=split(4),
        validation=split(2),
        test=split(3),
    )


@pytest.fixture(params=["memory", "local", "server"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    if request.param == "memory":
        with in_memory() as pair:
            yield pair
    else:
        uri = request.getfixturevalue("server_uri") if request.param == "server" else None
        root = request.getfixturevalue("project")
        request.getfixturevalue("recorder_threads")
        with in_mlflow(root, uri, request.getfixturevalue("wait_until_recorded")) as pair:
            yield pair


def test_what_a_tracker_is_told_can_be_read_back(opened: Opened, tmp_path: Path) -> None:
    tracker, read = opened
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    colour = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    (tmp_path / "note.txt").write_text("hello")
    table = {"index": [0, 1], "loss_nats": [0.5, 0.25]}
    pd.DataFrame(table).to_parquet(tmp_path / "images.parquet")
    save_model(
        tmp_path / "cnn", {"w": torch.zeros(2)}, {"family": "tiny", "image_shape": [1, 3, 4]}
    )

    tracker.log_params({"cnn.rate": 1e-3, "cnn.augment": True, "sources": ["a", "b"]})
    tracker.log_params({"cnn.rate": 1e-3, "seed": 0})
    for epoch in (1, 2):
        tracker.log_metrics({"loss_nats": 1 / epoch, "ok": float(epoch)}, step=epoch)
    tracker.log_metrics({"bad": math.inf, "worse": math.nan}, step=None)
    tracker.log_summary({"accuracy": 0.75})
    tracker.log_image("reconstructions", grey, step=1)
    tracker.log_image("samples/prior", colour, step=2)
    tracker.log_figure(picture_png(grey), "curves.png")
    tracker.log_figure(picture_png(colour), "plots/deep/curves.png")
    tracker.log_artifact(tmp_path / "note.txt")
    tracker.log_artifact(tmp_path / "note.txt", "folder")
    tracker.log_table(tmp_path / "images.parquet", "per_image")
    tracker.log_model(tmp_path / "cnn", "cnn")
    tracker.log_dataset(description(), Path("data", "processed"), "training")
    tracker.set_tags({"remote": "https://me:hunter2@host/path"})
    if not isinstance(tracker, MemoryTracker):  # what was named by path is no longer needed
        shutil.rmtree(tmp_path / "cnn")
        (tmp_path / "images.parquet").unlink()
        (tmp_path / "note.txt").unlink()
    record = read()

    assert record.params == {
        "cnn.rate": "0.001",
        "cnn.augment": "true",
        "sources": '["a", "b"]',
        "seed": "0",
    }
    assert record.metrics == {
        "loss_nats": [(1, "1.0"), (2, "0.5")],
        "ok": [(1, "1.0"), (2, "2.0")],
        "bad": [(0, "nan")],
        "worse": [(0, "nan")],
        "accuracy": [(0, "0.75")],
    }
    assert record.images == {
        ("reconstructions", 1): grey[:, :, 0].tolist(),
        ("samples/prior", 2): colour.tolist(),
    }
    assert record.figures == {
        "curves.png": grey[:, :, 0].tolist(),
        "plots/deep/curves.png": colour.tolist(),
    }
    assert record.files == {"note.txt": "hello", "folder/note.txt": "hello"}
    assert record.tables == {"per_image": table}
    assert record.models == ["cnn"]
    numbers = {"num_train": 4, "num_validation": 2, "num_test": 3}
    assert record.datasets == [("stripes", "data/processed", "training", numbers)]
    assert record.tags["diptych.dataset_sha256"] == description().digest
    assert record.tags["remote"] == "https://***@host/path"


def test_all_trackers_have_the_methods_of_the_protocol() -> None:
    methods = {name for name in vars(Tracker) if name.startswith(("log_", "set_"))}
    assert methods <= set(dir(NullTracker))
    assert methods <= set(dir(MemoryTracker))


@pytest.mark.usefixtures("recorder_threads")
def test_a_data_set_is_an_input_of_run_and_pipeline_once(
    project: Path, wait_until_recorded: Callable[[Path], None]
) -> None:
    store = find_store(project, {})
    parent = ParentRun(None, "one", "pipeline", {}, {})
    for stage in ("train_cnn", "train_vae"):
        tracker = MlflowTracker(store, project, stage, {}, parent, None)
        for _ in range(2):
            tracker.log_dataset(description(), Path("data"), "training")
        tracker.finish("FINISHED")
    wait_until_recorded(project)
    import mlflow

    runs = mlflow.MlflowClient(tracking_uri=store.uri).search_runs(["1"])
    contexts = {
        run.info.run_name: [one.tags[0].value for one in run.inputs.dataset_inputs]
        for run in runs
        if run.inputs is not None
    }
    assert contexts == {
        "pipeline": ["pipeline"],
        "train_cnn": ["training"],
        "train_vae": ["training"],
    }
    assert {run.data.tags["diptych.dataset_sha256"] for run in runs} == {description().digest}


def test_processes_that_are_the_first_to_name_a_data_set_do_not_disturb_each_other(
    project: Path,
) -> None:
    import mlflow

    event = DatasetLogged("stripes", "a" * 64, "data", {"train": 4}, [1, 3, 4], "training")
    client = mlflow.MlflowClient(tracking_uri=find_store(project, {}).uri)
    for number in range(5):
        experiment = client.create_experiment(f"{number}")
        runs = [client.create_run(experiment).info.run_id for _ in range(4)]
        with ThreadPoolExecutor(len(runs)) as pool:
            done = [pool.submit(log_dataset_input, client, event, run, None) for run in runs]
        assert [one.exception() for one in done] == [None] * len(runs)
