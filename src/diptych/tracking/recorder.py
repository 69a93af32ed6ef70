"""Events into MLflow. Runs in the recorder's process, where alone mlflow is imported."""

import io
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from diptych.files import read_json
from diptych.model_files import DIGESTS, MODEL_FILE
from diptych.tracking.dataset_inputs import log_dataset_input
from diptych.tracking.environment import prepare_environment
from diptych.tracking.events import (
    ArtifactLogged,
    DatasetLogged,
    Event,
    FigureLogged,
    ImageLogged,
    MetricsLogged,
    ModelLogged,
    ParamsLogged,
    ParentRun,
    RunEnded,
    RunReused,
    RunStarted,
    Status,
    SummaryLogged,
    TableLogged,
    TagsSet,
)
from diptych.tracking.links import (
    attach_inputs_and_models,
    attach_models,
    final_metrics,
)
from diptych.tracking.packing import pack_model, prepare_packing
from diptych.tracking.provenance import (
    COMPUTE_TAGS,
    PEAK_GPU_MEMORY_TAG,
    PEAK_MEMORY_TAG,
    SECONDS_TAG,
)
from diptych.tracking.recording import RefusedError
from diptych.tracking.store import Store, initialise_database
from diptych.tracking.tags import EXECUTION_TAG, JOURNAL_TAG, PARENT_TAG, REUSED_TAG

if TYPE_CHECKING:
    from PIL import Image

_MAX_PARAMS_PER_CALL = 100
_PEAK_TAGS = (PEAK_MEMORY_TAG, PEAK_GPU_MEMORY_TAG)
_WORST_FIRST: tuple[Status, ...] = ("FAILED", "KILLED", "FINISHED")


def prepare_mlflow(store: Store) -> None:
    """Do what takes seconds and needs no server, once in a process, before the first event.

    Imports mlflow, creates a local store that is not there yet, and opens it.
    """
    prepare_environment()
    import mlflow

    if store.database is not None and store.artifact_folder is not None:
        initialise_database(store.database, store.artifact_folder)
        mlflow.MlflowClient(tracking_uri=store.uri)
    prepare_packing()


class MlflowRecorder:
    """Writes the events of one run to an MLflow store.

    Of the same events, recorded a second time, no second run comes, and of an event recorded
    `again` no double.
    """

    def __init__(self, store: Store, journal: str) -> None:
        """Record in a store that `prepare_mlflow` has prepared.

        Args:
            store: Where.
            journal: A name that no other run has; finds the run again.
        """
        self._store = store
        self._journal = journal
        self._run_id: str | None = None
        self._parent_run_id: str | None = None
        self._owns_parent = False
        self._experiment_id = ""

    def record(self, event: Event, again: bool = False) -> None:
        """Write one event; the first must be the run's start.

        Args:
            event: What happened.
            again: Whether it may have been written before, wholly or in part.

        Raises:
            RefusedError: when the store finds the event itself at fault.
        """
        from mlflow.exceptions import MlflowException

        try:
            self._record(event, again)
        except MlflowException as error:
            # The same is said of everything that is for a deleted run, until it is restored.
            if error.error_code == "INVALID_PARAMETER_VALUE" and self._has_living_runs():
                raise RefusedError from error
            raise

    def _has_living_runs(self) -> bool:
        runs = [self._client.get_run(run_id) for run_id in self._run_and_parent]
        return all(run.info.lifecycle_stage == "active" for run in runs)

    def _record(self, event: Event, again: bool) -> None:
        match event:
            case RunStarted():
                self._start(event)
            case ParamsLogged():
                self._log_new_params(self._run, event.params)
            case MetricsLogged():
                self._log_metrics(self._run, event.metrics, event.step or 0, event.time_ms, again)
            case SummaryLogged():
                for run_id in self._run_and_parent:
                    self._log_metrics(run_id, event.metrics, 0, event.time_ms, again)
            case TagsSet():
                self._set_tags(self._run, event.tags)
            case ImageLogged():
                for run_id in self._run_and_parent if event.is_headline else [self._run]:
                    self._log_image(run_id, event, again)
            case FigureLogged():
                self._log_figure(event)
            case ArtifactLogged():
                self._client.log_artifact(self._run, event.path, event.folder)
            case TableLogged():
                self._log_table(event, again)
            case ModelLogged():
                self._log_model(event, again)
            case DatasetLogged():
                log_dataset_input(self._client, event, self._run, self._parent_run_id)
            case RunReused():
                self._reuse(event, again)
            case RunEnded():
                self._end(event)

    @property
    def run_id(self) -> str:
        """The run, once its start is recorded."""
        return self._run

    @property
    def parent_run_id(self) -> str | None:
        """The run above this one, once the start is recorded; None when it stands alone."""
        return self._parent_run_id

    @property
    def _run(self) -> str:
        assert self._run_id is not None, "the first event of a run is its start"  # noqa: S101
        return self._run_id

    @property
    def _run_and_parent(self) -> list[str]:
        return [run_id for run_id in (self._run, self._parent_run_id) if run_id is not None]

    def _start(self, event: RunStarted) -> None:
        import mlflow

        self._client = mlflow.MlflowClient(tracking_uri=self._store.uri)
        tags = dict(event.tags)
        if event.parent is not None:
            self._parent_run_id = self._open_parent(event.parent, event.time_ms)
            self._log_new_params(self._parent_run_id, event.parent.params)
            tags[PARENT_TAG] = self._parent_run_id
        self._experiment_id = self._experiment_of(self._parent_run_id)
        self._run_id = self._find_run(self._experiment_id, JOURNAL_TAG, self._journal)
        if self._run_id is None:
            tags[JOURNAL_TAG] = self._journal
            run = self._client.create_run(self._experiment_id, event.time_ms, tags, event.name)
            self._run_id = run.info.run_id

    def _open_parent(self, parent: ParentRun, time_ms: int) -> str:
        execution = {EXECUTION_TAG: parent.execution} if parent.execution else {}
        if parent.run_id is not None:
            known = self._client.get_run(parent.run_id).data.tags
            missing = {key: value for key, value in parent.tags.items() if key not in known}
            self._set_tags(parent.run_id, missing | execution)
            return parent.run_id
        self._owns_parent = True
        experiment_id = self._find_or_create_experiment()
        if run_id := self._find_run(experiment_id, EXECUTION_TAG, parent.execution):
            self._client.update_run(run_id, "RUNNING")
            return run_id
        tags = {**parent.tags, **execution}
        run = self._client.create_run(experiment_id, time_ms, tags, parent.name)
        return str(run.info.run_id)

    def _find_run(self, experiment_id: str, tag: str, value: str) -> str | None:
        condition = f"tags.`{tag}` = '{value}'"
        for found in self._client.search_runs([experiment_id], condition, max_results=1):
            return str(found.info.run_id)
        return None

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
        if self._parent_run_id is None:
            return
        children = self._client.search_runs(
            [self._experiment_id], f"tags.`{PARENT_TAG}` = '{self._parent_run_id}'"
        )
        if self._owns_parent:
            status = _worst_status(children, event.status)
            self._client.set_terminated(self._parent_run_id, status, event.time_ms)
        self._set_tags(self._parent_run_id, _summary_tags(children))

    def _reuse(self, event: RunReused, again: bool) -> None:
        made = self._client.get_run(event.run_id)
        shown_on = self._run_and_parent if event.is_headline else [self._run]
        self._log_new_params(self._run, made.data.params)
        for (step, time_ms), metrics in final_metrics(made).items():
            for run_id in shown_on:
                self._log_metrics(run_id, metrics, step, time_ms, again)
        attach_inputs_and_models(self._client, made, self._run)

    def _log_new_params(self, run_id: str, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        # MLflow refuses a second value for a key; the first is what the run started with.
        known = self._client.get_run(run_id).data.params
        new = [Param(key, value) for key, value in params.items() if key not in known]
        for start in range(0, len(new), _MAX_PARAMS_PER_CALL):
            batch = new[start : start + _MAX_PARAMS_PER_CALL]
            self._client.log_batch(run_id, params=batch)

    def _log_metrics(
        self, run_id: str, metrics: Mapping[str, float], step: int, time_ms: int, again: bool
    ) -> None:
        from mlflow.entities import Metric

        entities = [
            Metric(key, value, time_ms, step)
            for key, value in metrics.items()
            if not (again and self._has_metric(run_id, key, step, time_ms))
        ]
        self._client.log_batch(run_id, metrics=entities)

    def _has_metric(self, run_id: str, key: str, step: int, time_ms: int) -> bool:
        # MLflow itself takes no double, except that it fails on one of a NaN.
        history = self._client.get_metric_history(run_id, key)
        return any((old.step, old.timestamp) == (step, time_ms) for old in history)

    def _set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def _log_image(self, run_id: str, event: ImageLogged, again: bool) -> None:
        from PIL import Image

        name = self._name_of_image(run_id, event) if again else None
        with Image.open(io.BytesIO(event.png)) as image:
            if name is not None:
                self._complete_image(run_id, name, image)
                return
            self._client.log_image(
                run_id,
                image,
                key=event.key,
                step=event.step,
                timestamp=event.time_ms,
                synchronous=True,
            )

    def _name_of_image(self, run_id: str, event: ImageLogged) -> str | None:
        # MLflow's name of one: key, step and time between separators, and a random end.
        wanted = [event.key.replace("/", "~"), "step", str(event.step)]
        wanted += ["timestamp", str(event.time_ms)]
        files = [Path(file.path) for file in self._client.list_artifacts(run_id, "images")]
        names = (file.stem for file in files if file.suffix == ".png")
        return next((name for name in names if re.split("[+%]", name)[:5] == wanted), None)

    def _complete_image(self, run_id: str, name: str, image: "Image.Image") -> None:
        """Write what MLflow writes after an image's own file: the preview that the UI shows."""
        from mlflow.tracking.multimedia import compress_image_size

        with tempfile.TemporaryDirectory(prefix="diptych-") as temporary:
            preview = Path(temporary, f"{name}+compressed.webp")
            compress_image_size(image).save(preview)
            self._client.log_artifact(run_id, str(preview), "images")
        self._client.set_tag(run_id, "mlflow.loggedImages", "True")

    def _log_figure(self, event: FigureLogged) -> None:
        path = PurePosixPath(event.path)
        folder = None if path.parent == PurePosixPath() else str(path.parent)
        with tempfile.TemporaryDirectory(prefix="diptych-") as temporary:
            file = Path(temporary, path.name)
            file.write_bytes(event.png)
            self._client.log_artifact(self._run, str(file), folder)

    def _log_table(self, event: TableLogged, again: bool) -> None:
        import pandas as pd

        name = f"{event.name}.json"
        if again and name in (file.path for file in self._client.list_artifacts(self._run)):
            self._name_table(name)  # MLflow would append to it
        else:
            self._client.log_table(self._run, pd.read_parquet(event.path), name)

    def _name_table(self, name: str) -> None:
        """Set what MLflow sets after a table's own file: the tag that shows it in the UI."""
        tag, table = "mlflow.loggedArtifacts", {"path": name, "type": "table"}
        named = json.loads(self._client.get_run(self._run).data.tags.get(tag, "[]"))
        if table not in named:
            self._client.set_tag(self._run, tag, json.dumps([*named, table]))

    def _log_model(self, event: ModelLogged, again: bool) -> None:
        from mlflow.entities import LoggedModelOutput

        folder = Path(event.folder)
        description = read_json(folder / MODEL_FILE)
        model = self._find_model(event.name) if again else None
        if model is None:
            model = self._create_model(event.name, description)
        # Found or new: the answer to its creation may be all that was lost.
        attach_models(self._client, [LoggedModelOutput(model.model_id, step=0)], self._run)
        with tempfile.TemporaryDirectory(prefix="diptych-") as temporary:
            packed = Path(temporary, "model")
            identity = {
                "artifact_path": model.artifact_location,
                "run_id": self._run,
                "model_uuid": model.model_id,
                "model_id": model.model_id,
            }
            pack_model(packed, folder, description["image_shape"], identity)
            self._client.log_model_artifacts(model.model_id, str(packed))
        self._client.finalize_logged_model(model.model_id, "READY")

    def _find_model(self, name: str) -> Any | None:
        condition = f"source_run_id = '{self._run}' AND name = '{name}'"
        found = self._client.search_logged_models([self._experiment_id], condition)
        return found[0] if found else None

    def _create_model(self, name: str, description: Mapping[str, Any]) -> Any:
        return self._client.create_logged_model(
            self._experiment_id,
            name=name,
            source_run_id=self._run,
            tags=identity_tags(description),
        )


def member_description_tag(family: str) -> str:
    """Return the tag of a pair that says which description a member of it has."""
    return f"{family}_description_sha256"


def identity_tags(description: Mapping[str, Any]) -> dict[str, str]:
    """Return what says which model it is, and of a pair also which members it has."""
    # Older code, whose journal may have waited for a server, did not know all of them.
    own = {key: description[key] for key in DIGESTS if key in description}
    members = description.get("member_descriptions", {})
    return own | {member_description_tag(family): digest for family, digest in members.items()}


def _worst_status(stages: Sequence[Any], status: Status) -> Status:
    """Return how an execution ended: DVC may go on after a stage that failed."""
    statuses = {status, *(run.info.status for run in stages)}
    return next((one for one in _WORST_FIRST if one in statuses), status)


def _summary_tags(stages: Sequence[Any]) -> dict[str, str]:
    """Return what the stages that ran say of an execution: their cost together, and on what."""
    found = [run.data.tags for run in stages if REUSED_TAG not in run.data.tags]
    values = {
        tag: [tags[tag] for tags in found if tag in tags]
        for tag in (SECONDS_TAG, *_PEAK_TAGS, *COMPUTE_TAGS)
    }
    summary = {tag: ", ".join(sorted(set(values[tag]))) for tag in COMPUTE_TAGS}
    with suppress(ValueError):  # somebody may have edited them
        summary[SECONDS_TAG] = f"{sum(map(float, values[SECONDS_TAG])):.2f}"
        summary |= {tag: str(max(map(int, values[tag]), default=0)) for tag in _PEAK_TAGS}
    return {tag: text for tag, text in summary.items() if values[tag]}
