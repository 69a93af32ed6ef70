"""The run of a stage: what a stage opens once and tells its progress to."""

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from diptych.errors import UserError
from diptych.execution import find_execution, process_key
from diptych.params import dotted, read_yaml
from diptych.presets import preset_tags
from diptych.tracking.events import ParentRun, Status
from diptych.tracking.liveness import PROCESS_TAG, process_tag
from diptych.tracking.mlflow_tracker import MlflowTracker
from diptych.tracking.params_file import log_params_file
from diptych.tracking.pipeline import chosen_params
from diptych.tracking.provenance import (
    compute_tags,
    cost_tags,
    dep_hashes,
    fingerprint_of,
    machine_tags,
    sha256_of_values,
    source_tags,
)
from diptych.tracking.store import find_root, find_store, find_workspace
from diptych.tracking.tags import FINGERPRINT_TAG, PARENT_TAG, STAGE_TAG
from diptych.tracking.tracker import NullTracker, Tracker, as_text

SWITCH = "DIPTYCH_TRACKING"
GROUP_VARIABLE = "DIPTYCH_GROUP_RUN"
"""Environment variable: the id of a run under which the runs of whole executions hang."""
GROUP_TAG = "diptych.group"
"""Names that run, on itself and on the runs under it."""


class TrackingError(UserError):
    """The tracking is not set up as it must be."""


@contextmanager
def stage_run(stage: str, params_path: Path, sections: Sequence[str]) -> Iterator[Tracker]:
    """Record one stage as an MLflow run, under the run of the pipeline execution it belongs to.

    The run ends FINISHED, FAILED (an exception) or KILLED (Ctrl-C, SIGTERM). Recording happens in
    a process of its own; whatever becomes of it, the stage goes on.

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
    if not is_switched_on():
        yield NullTracker()
        return
    started = time.monotonic()
    tracker = _start(stage, params_path, sections, project_run_id)
    status: Status = "FAILED"
    try:
        yield tracker
        status = "FINISHED"
    except BaseException as error:
        status = status_after(error)
        raise
    finally:
        tracker.set_tags(cost_tags(time.monotonic() - started))
        tracker.finish(status)


def is_switched_on() -> bool:
    """Tell whether runs are to be recorded.

    Raises:
        TrackingError: when DIPTYCH_TRACKING is neither on nor off.
    """
    switch = os.environ.get(SWITCH, "on")
    if switch not in ("on", "off"):
        raise TrackingError(f"{SWITCH}: must be on or off (got {switch!r})")
    return switch == "on"


def _start(
    stage: str, params_path: Path, sections: Sequence[str], project_run_id: str | None
) -> MlflowTracker:
    environment = os.environ
    content = read_yaml(params_path)
    params = dotted(content)
    chosen = chosen_params(params, sections)
    workspace = find_workspace(params_path, environment)
    source = source_tags(workspace, environment) | preset_tags(params, workspace / "presets")
    source |= machine_tags()
    tags = source | _stage_tags(stage, environment.get("DVC_STAGE", ""), chosen, workspace)
    root = find_root(params_path, environment)
    pipeline = find_execution()
    tracker = MlflowTracker(
        store=find_store(root, environment),
        root=root,
        name=stage,
        tags={key: value for key, value in tags.items() if value},
        parent=_parent(params, source, project_run_id, pipeline),
        pipeline=pipeline,
    )
    tracker.log_params(chosen)
    log_params_file(tracker, params_path, content)
    return tracker


def _stage_tags(
    stage: str, dvc_stage: str, params: Mapping[str, object], workspace: Path
) -> dict[str, str]:
    deps = dep_hashes(workspace, dvc_stage)
    return {
        "mlflow.source.name": Path(sys.argv[0]).name,
        STAGE_TAG: stage,
        PROCESS_TAG: process_tag(psutil.Process()),
        "dvc.stage": dvc_stage,
        "diptych.params_sha256": sha256_of_values(params),
        FINGERPRINT_TAG: "" if deps is None else fingerprint_of(dvc_stage, params, deps),
        **{f"diptych.dep.{path}": value for path, value in (deps or {}).items()},
        **compute_tags(params),
    }


def _parent(
    params: Mapping[str, object],
    source: Mapping[str, str],
    project_run_id: str | None,
    pipeline: psutil.Process | None,
) -> ParentRun | None:
    if project_run_id is None and pipeline is None:
        return None
    return ParentRun(
        run_id=project_run_id,
        execution="" if pipeline is None else process_key(pipeline),
        name=source.get("dvc.experiment") or _pipeline_name(params),
        params=as_text(params),
        tags=as_text(
            {
                **source,
                **_group_tags(os.environ.get(GROUP_VARIABLE)),
                **({} if pipeline is None else {PROCESS_TAG: process_tag(pipeline)}),
                "mlflow.source.name": "dvc.yaml",
                "diptych.params_sha256": sha256_of_values(params),
            }
        ),
    )


def _group_tags(run_id: str | None) -> dict[str, str]:
    return {PARENT_TAG: run_id, GROUP_TAG: run_id} if run_id else {}


def _pipeline_name(params: Mapping[str, object]) -> str:
    """Name a pipeline's run by what is compared: `mnist cnn:article vae:article`."""
    architectures = [
        f"{key.removeprefix('train_').removesuffix('.architecture')}:{value}"
        for key, value in params.items()
        if key.startswith("train_") and key.endswith(".architecture")
    ]
    return " ".join([str(params.get("dataset.name", "pipeline")), *architectures])


def status_after(error: BaseException) -> Status:
    """Tell how a run ends that an exception ends."""
    if isinstance(error, KeyboardInterrupt):
        return "KILLED"
    if isinstance(error, SystemExit):
        if error.code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
            return "KILLED"
        return "FAILED" if error.code else "FINISHED"
    return "FAILED"
