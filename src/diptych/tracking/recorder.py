"""Events into MLflow. Runs in the background thread, where alone mlflow is imported."""

import importlib.metadata
import io
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from diptych.files import read_json
from diptych.tracking.events import (
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
from diptych.tracking.store import Store, initialise_database

EXECUTION_TAG = "diptych.execution"

_ENVIRONMENT = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # MLflow's own patience, 7 retries of 120 s, is for programs that cannot go on without it.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A uv.lock names the package index that it was made from.
    "MLFLOW_UV_AUTO_DETECT": "false",
}
_MAX_PARAMS_PER_CALL = 100
_SERVED_BY = "diptych.tracking.served"
_REQUIREMENTS = (
    "jaxtyping",
    "mlflow",
    "numpy",
    "pydantic",
    "ruamel.yaml",
    "safetensors",
    "torch",
)


class MlflowRecorder:
    """Writes the events of one run to an MLflow store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._run_id: str | None = None
        self._parent_run_id: str | None = None
        self._owns_parent = False
        self._experiment_id = ""

    def prepare(self) -> None:
        """Import mlflow and create the local store if it is not there yet."""
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        # It tells every retry on stderr, with the address; the writer tells the failure, once.
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        import mlflow  # noqa: F401  # takes seconds

        if self._store.database is not None and self._store.artifact_folder is not None:
            initialise_database(self._store.database, self._store.artifact_folder)

    def record(self, event: Event) -> None:
        """Write one event; the first must be the run's start."""
        match event:
            case RunStarted():
                self._start(event)
            case ParamsLogged():
                self._log_new_params(self._run, event.params)
            case MetricsLogged():
                self._log_metrics(self._run, event.metrics, event.step or 0, event.time_ms)
            case SummaryLogged():
                for run_id in filter(None, (self._run, self._parent_run_id)):
                    self._log_metrics(run_id, event.metrics, 0, event.time_ms)
            case TagsSet():
                self._set_tags(event.tags)
            case ImageLogged():
                self._log_image(event)
            case FigureLogged():
                self._log_figure(event)
            case ArtifactLogged():
                self._client.log_artifact(self._run, event.path, event.folder)
            case TableLogged():
                self._log_table(event)
            case ModelLogged():
                self._log_model(event)
            case RunEnded():
                self._end(event)

    @property
    def _run(self) -> str:
        assert self._run_id is not None, "the first event of a run is its start"  # noqa: S101
        return self._run_id

    def _start(self, event: RunStarted) -> None:
        import mlflow

        self._client = mlflow.MlflowClient(tracking_uri=self._store.uri)
        tags = dict(event.tags)
        if event.parent is not None:
            self._parent_run_id = self._open_parent(event.parent, event.time_ms)
            self._log_new_params(self._parent_run_id, event.parent.params)
            tags["mlflow.parentRunId"] = self._parent_run_id
        self._experiment_id = self._experiment_of(self._parent_run_id)
        run = self._client.create_run(self._experiment_id, event.time_ms, tags, event.name)
        self._run_id = run.info.run_id

    def _open_parent(self, parent: ParentRun, time_ms: int) -> str:
        if parent.run_id is not None:
            return parent.run_id
        self._owns_parent = True
        experiment_id = self._find_or_create_experiment()
        condition = f"tags.`{EXECUTION_TAG}` = '{parent.execution}'"
        for found in self._client.search_runs([experiment_id], condition, max_results=1):
            self._client.update_run(found.info.run_id, "RUNNING")
            return str(found.info.run_id)
        tags = {**parent.tags, EXECUTION_TAG: parent.execution}
        run = self._client.create_run(experiment_id, time_ms, tags, parent.name)
        return str(run.info.run_id)

    def _experiment_of(self, parent_run_id: str | None) -> str:
        if parent_run_id is None:
            return self._find_or_create_experiment()
        return str(self._client.get_run(parent_run_id).info.experiment_id)

    def _find_or_create_experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        name = self._store.experiment
        if experiment := self._client.get_experiment_by_name(name):
            return str(experiment.experiment_id)
        try:
            return self._client.create_experiment(name, self._store.artifact_location)
        except MlflowException as error:
            # Another process was faster.
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return self._find_or_create_experiment()

    def _end(self, event: RunEnded) -> None:
        if self._run_id is not None:
            self._client.set_terminated(self._run_id, event.status, event.time_ms)
        if self._parent_run_id is not None and self._owns_parent:
            self._client.set_terminated(self._parent_run_id, event.status, event.time_ms)

    def _log_new_params(self, run_id: str, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        # MLflow refuses a second value for a key; the first is what the run started with.
        known = self._client.get_run(run_id).data.params
        new = [Param(key, value) for key, value in params.items() if key not in known]
        for start in range(0, len(new), _MAX_PARAMS_PER_CALL):
            batch = new[start : start + _MAX_PARAMS_PER_CALL]
            self._client.log_batch(run_id, params=batch)

    def _log_metrics(
        self, run_id: str, metrics: Mapping[str, float], step: int, time_ms: int
    ) -> None:
        from mlflow.entities import Metric

        entities = [Metric(key, value, time_ms, step) for key, value in metrics.items()]
        self._client.log_batch(run_id, metrics=entities)

    def _set_tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self._client.log_batch(self._run, tags=[RunTag(key, value) for key, value in tags.items()])

    def _log_image(self, event: ImageLogged) -> None:
        from PIL import Image

        with Image.open(io.BytesIO(event.png)) as image:
            self._client.log_image(
                self._run,
                image,
                key=event.key,
                step=event.step,
                timestamp=event.time_ms,
                synchronous=True,
            )

    def _log_figure(self, event: FigureLogged) -> None:
        path = PurePosixPath(event.path)
        folder = None if path.parent == PurePosixPath() else str(path.parent)
        with tempfile.TemporaryDirectory(prefix="diptych-") as temporary:
            file = Path(temporary, path.name)
            file.write_bytes(event.png)
            self._client.log_artifact(self._run, str(file), folder)

    def _log_table(self, event: TableLogged) -> None:
        import pandas as pd

        self._client.log_table(self._run, pd.read_parquet(event.path), f"{event.name}.json")

    def _log_model(self, event: ModelLogged) -> None:
        from mlflow.entities import LoggedModelOutput

        from diptych.checkpoints import DESCRIPTION_FILE  # imports torch

        folder = Path(event.folder)
        description = read_json(folder / DESCRIPTION_FILE)
        model = self._client.create_logged_model(
            self._experiment_id,
            name=event.name,
            source_run_id=self._run,
            tags={"weights_sha256": description["weights_sha256"]},
        )
        self._client.log_outputs(self._run, [LoggedModelOutput(model.model_id, step=0)])
        with tempfile.TemporaryDirectory(prefix="diptych-") as temporary:
            packed = Path(temporary, "model")
            identity = {
                "artifact_path": model.artifact_location,
                "run_id": self._run,
                "model_uuid": model.model_id,
                "model_id": model.model_id,
            }
            _pack_model(packed, folder, description["image_shape"], identity)
            self._client.log_model_artifacts(model.model_id, str(packed))
        self._client.finalize_logged_model(model.model_id, "READY")


def _pack_model(
    packed: Path, folder: Path, image_shape: Sequence[int], identity: Mapping[str, Any]
) -> None:
    """Wrap a model's folder in what `mlflow.pyfunc.load_model` reads; no pickle, no inference."""
    import mlflow.pyfunc
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    mlflow.pyfunc.save_model(
        path=str(packed),
        loader_module=_SERVED_BY,
        data_path=str(folder),
        pip_requirements=[f"{name}=={_public_version(name)}" for name in _REQUIREMENTS],
        signature=ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, *image_shape))]),
            outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, -1))]),
        ),
        input_example=np.zeros((2, *image_shape), dtype=np.uint8),
        mlflow_model=Model(**identity),
    )


def _public_version(package: str) -> str:
    return importlib.metadata.version(package).partition("+")[0]
