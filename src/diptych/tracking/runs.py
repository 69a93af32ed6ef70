"""The run of a stage: what a stage opens once and tells its progress to."""

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from diptych.errors import UserError
from diptych.params import read_yaml
from diptych.tracking.events import ParentRun, Status
from diptych.tracking.execution import find_execution
from diptych.tracking.mlflow_tracker import MlflowTracker
from diptych.tracking.provenance import cost_tags, machine_tags, source_tags, stage_fingerprint
from diptych.tracking.store import find_root, find_store, find_workspace
from diptych.tracking.tracker import NullTracker, Tracker, as_text, flatten

SWITCH = "DIPTYCH_TRACKING"


class TrackingError(UserError):
    """The tracking is not set up as it must be."""


@contextmanager
def stage_run(stage: str, params_path: Path, sections: Sequence[str]) -> Iterator[Tracker]:
    """Record one stage as an MLflow run, under the run of the pipeline execution it belongs to.

    The run ends FINISHED, FAILED (an exception) or KILLED (Ctrl-C, SIGTERM). Recording happens in
    the background; whatever becomes of it, the stage goes on.

    Args:
        stage: The stage's name; becomes the run's.
        params_path: The parameter file.
        sections: Keys of the file that the stage depends on (`train_cnn`, `dataset.name`).

    Yields:
        What the stage tells its progress to.

    Raises:
        TrackingError: when DIPTYCH_TRACKING is neither on nor off.
        ParamsError: when the parameter file cannot be read.
    """
    # `mlflow run` exports its run for the stage to write into. It is the whole pipeline's run, and
    # an MLflow that found it would put every stage into it.
    project_run_id = os.environ.pop("MLFLOW_RUN_ID", None)
    if not _is_switched_on():
        yield NullTracker()
        return
    started = time.monotonic()
    tracker = _start(stage, params_path, sections, project_run_id)
    status: Status = "FAILED"
    try:
        yield tracker
        status = "FINISHED"
    except BaseException as error:
        status = _status_after(error)
        raise
    finally:
        tracker.set_tags(cost_tags(time.monotonic() - started))
        tracker.finish(status)


def _is_switched_on() -> bool:
    switch = os.environ.get(SWITCH, "on")
    if switch not in ("on", "off"):
        raise TrackingError(f"{SWITCH}: must be on or off (got {switch!r})")
    return switch == "on"


def _start(
    stage: str, params_path: Path, sections: Sequence[str], project_run_id: str | None
) -> MlflowTracker:
    environment = os.environ
    params = flatten(read_yaml(params_path))
    chosen = _chosen(params, sections)
    workspace = find_workspace(params_path, environment)
    source = source_tags(workspace, environment)
    dvc_stage = environment.get("DVC_STAGE", "")
    tags = {
        **source,
        **machine_tags(),
        "mlflow.source.name": Path(sys.argv[0]).name,
        "diptych.stage": stage,
        "diptych.fingerprint": stage_fingerprint(workspace, dvc_stage, chosen) or "",
        "dvc.stage": dvc_stage,
    }
    tracker = MlflowTracker(
        store=find_store(find_root(params_path, environment), environment),
        name=stage,
        tags={key: value for key, value in tags.items() if value},
        parent=_parent(params, source, project_run_id),
    )
    tracker.log_params(chosen)
    return tracker


def _parent(
    params: Mapping[str, object], source: Mapping[str, str], project_run_id: str | None
) -> ParentRun | None:
    execution = find_execution()
    if project_run_id is None and execution is None:
        return None
    return ParentRun(
        run_id=project_run_id,
        execution=execution or "",
        name=source.get("dvc.experiment") or _pipeline_name(params),
        params=as_text(params),
        tags=as_text({**source, "mlflow.source.name": "dvc.yaml"}),
    )


def _pipeline_name(params: Mapping[str, object]) -> str:
    """Name a pipeline's run by what is compared: `mnist cnn:article vae:article`."""
    architectures = [
        f"{key.removeprefix('train_').removesuffix('.architecture')}:{value}"
        for key, value in params.items()
        if key.startswith("train_") and key.endswith(".architecture")
    ]
    return " ".join([str(params.get("dataset.name", "pipeline")), *architectures])


def _chosen(params: Mapping[str, object], sections: Sequence[str]) -> dict[str, object]:
    return {
        key: value
        for key, value in params.items()
        if any(key == section or key.startswith(f"{section}.") for section in sections)
    }


def _status_after(error: BaseException) -> Status:
    if isinstance(error, KeyboardInterrupt):
        return "KILLED"
    if isinstance(error, SystemExit):
        if error.code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
            return "KILLED"
        return "FAILED" if error.code else "FINISHED"
    return "FAILED"
