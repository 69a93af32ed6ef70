"""Which runs of a pipeline execution made a model and evaluated it."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.promotion.record import Family
from diptych.tracking.client import (
    StoreError,
    connect,
    failures_in_one_line,
    is_missing,
    store_of,
)
from diptych.tracking.journal import about, is_being_written
from diptych.tracking.mlflow_tracker import JOURNALS_FOLDER
from diptych.tracking.process import SNAPSHOT_FOLDER, is_recorder_alive
from diptych.tracking.recorder import member_description_tag
from diptych.tracking.recording import journals_in
from diptych.tracking.secrets import redacted
from diptych.tracking.store import Store, find_root
from diptych.tracking.tags import (
    COMMIT_TAG,
    DIRTY_TAG,
    EXECUTION_TAG,
    PARENT_TAG,
    REUSED_TAG,
    STAGE_TAG,
    USER_TAG,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

MADE_BY: Mapping[Family, str] = {"cnn": "train_cnn", "vae": "train_vae", "pair": "evaluate"}
"""The stage that makes a family's models."""

_NEWEST_FIRST = ["attributes.start_time DESC"]
_PAGE = 50


@dataclass(frozen=True, slots=True)
class PipelineRun:
    """The pipeline execution that a candidate is taken from; what is not recorded is None.

    Attributes:
        run_id: Of the execution.
        user: Who started it.
        commit: git's, of its code; a stage that did not run again may be of another.
    """

    run_id: str
    user: str | None
    commit: str | None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model comes from.

    Attributes:
        run_id: The run that made it.
        model: MLflow's logged model.
        evaluation_run_id: The run that has its figures; None if it is gone.
        is_dirty: Whether the code that made or evaluated it had changes that were not committed;
            None if nobody knows.
        tags: Of the run that made it; empty if not needed.
    """

    run_id: str
    model: "LoggedModel"
    evaluation_run_id: str | None
    is_dirty: bool | None
    tags: Mapping[str, str]


def find_origin(
    client: "MlflowClient", experiment: str, family: Family, run_id: str | None
) -> tuple[Origin, PipelineRun]:
    """Find the model of a pipeline execution.

    Args:
        client: Of the store.
        experiment: The experiment's name.
        family: Which of the models.
        run_id: Run of an execution, or of one of its stages; None for the newest execution that is
            complete: it has finished, and each stage that makes models ran in it or is linked.

    Returns:
        Where the model comes from, and the execution.

    Raises:
        StoreError: when there is no such run, one of the stages has no finished run, or the
            execution evaluated other models.
    """
    if run_id is None:
        execution, runs = _newest_complete(client, experiment)
    else:
        given = get_run(client, run_id)
        execution = _execution_of(client, given)
        runs = _demanded_runs(client, execution)
        if given.data.tags.get(STAGE_TAG) == MADE_BY[family]:
            runs[family] = given
    runs = {one: _maker(client, run) for one, run in runs.items()}
    models = {one: _model_of(client, run, one) for one, run in runs.items()}
    _check_evaluated(execution, models)
    made_by = runs[family]
    # Its figures count too: all of them are from the run that evaluated the pair.
    counted = list(runs.values()) if family == "pair" else [made_by, runs["pair"]]
    origin = Origin(
        run_id=made_by.info.run_id,
        model=models[family],
        evaluation_run_id=runs["pair"].info.run_id,
        is_dirty=_is_dirty(counted),
        tags=made_by.data.tags,
    )
    tags = execution.data.tags
    return origin, PipelineRun(execution.info.run_id, tags.get(USER_TAG), tags.get(COMMIT_TAG))


def check_recorded(params: Path) -> None:
    """Check that no execution of a project waits to be recorded: it may be the newest.

    Args:
        params: The project's parameter file.

    Raises:
        StoreError: when one does, or the store does not answer; what was told to another store
            does not count.
    """
    journals, store = find_root(params, os.environ) / JOURNALS_FOLDER, store_of(params)
    if num := sum(_is_waiting(folder, store) for folder in journals.glob("*")):
        raise StoreError(
            f"{journals}: must be recorded in {redacted(store.uri)} (got {num} not recorded, "
            "perhaps the newest execution): run `diptych sync`, or name a run by --run"
        )


def _is_waiting(folder: Path, store: Store) -> bool:
    """Tell whether an execution that is over has told a store what is not recorded there."""
    journals = journals_in(folder)
    if not journals:  # perhaps the stages that it did not have to run, which are told last
        may_be_told = is_recorder_alive(folder) or (folder / SNAPSHOT_FOLDER).is_dir()
        return may_be_told and _has_execution(store, folder.name.partition("-")[0])
    here = {"store": redacted(store.uri), "experiment": store.experiment}
    is_over = not any(map(is_being_written, journals))
    return is_over and any(here.items() <= {**here, **about(one)}.items() for one in journals)


def _has_execution(store: Store, execution: str) -> bool:
    """Tell whether an execution, whose journals are recorded, was told to a store's experiment."""
    client = connect(store)
    with failures_in_one_line(store):
        found = client.get_experiment_by_name(store.experiment)
        condition = f"tags.`{EXECUTION_TAG}` = '{execution}'"
        return found is not None and bool(
            client.search_runs([found.experiment_id], condition, max_results=1)
        )


def get_run(client: "MlflowClient", run_id: str) -> "Run":
    """Return a run.

    Raises:
        StoreError: when it does not exist or was deleted.
    """
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        # Of an id that cannot be one, MLflow says that the parameter is invalid.
        if not is_missing(error) and error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        raise StoreError(f"run {run_id}: does not exist") from None
    if run.info.lifecycle_stage != "active":
        raise StoreError(f"run {run_id}: must not be deleted")
    return run


def _model_of(client: "MlflowClient", run: "Run", family: Family) -> "LoggedModel":
    """Return the newest model of a family that a run has logged.

    Raises:
        StoreError: when there is none.
    """
    condition = f"source_run_id = '{run.info.run_id}' AND name = '{family}'"
    found = client.search_logged_models([run.info.experiment_id], condition)
    if not found:
        raise StoreError(f"run {run.info.run_id}: must have logged the model {family} (got none)")
    return max(found, key=lambda model: int(model.creation_timestamp))


def _newest_complete(client: "MlflowClient", experiment: str) -> "tuple[Run, dict[Family, Run]]":
    """Return the newest execution that has all the stages' runs, and these.

    An execution is FINISHED between its stages too, and one of a single stage has no others.
    """
    found = client.get_experiment_by_name(experiment)
    for execution in _finished_executions(client, found.experiment_id) if found else ():
        runs = _finished_runs(client, execution)
        if runs.keys() == MADE_BY.keys():
            return execution, runs
    raise StoreError(
        f"experiment {experiment}: must have a finished pipeline run with the stages "
        f"{', '.join(MADE_BY.values())} (got none)"
    )


def _finished_executions(client: "MlflowClient", experiment_id: str) -> "Iterator[Run]":
    """Yield them, newest first."""
    token = None
    while True:
        page = client.search_runs(
            [experiment_id],
            f"attributes.status = 'FINISHED' AND tags.`{EXECUTION_TAG}` != ''",
            max_results=_PAGE,
            order_by=_NEWEST_FIRST,
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return


def _execution_of(client: "MlflowClient", run: "Run") -> "Run":
    """Return the run of the execution that a run is, or is a stage of."""
    if STAGE_TAG not in run.data.tags:
        return run
    parent = run.data.tags.get(PARENT_TAG)
    if parent is None:
        raise StoreError(
            f"run {run.info.run_id}: must be part of a pipeline run, which evaluates the model "
            "(got a stage that was run alone)"
        )
    return get_run(client, parent)


def _demanded_runs(client: "MlflowClient", execution: "Run") -> "dict[Family, Run]":
    runs = _finished_runs(client, execution)
    for family, stage in MADE_BY.items():
        if family not in runs:
            run_id = execution.info.run_id
            raise StoreError(f"run {run_id}: must have a finished stage {stage} (got none)")
    return runs


def _finished_runs(client: "MlflowClient", execution: "Run") -> "dict[Family, Run]":
    """Return an execution's newest finished run of each stage that makes models, if it has one."""
    found = client.search_runs(
        [execution.info.experiment_id],
        f"attributes.status = 'FINISHED' AND tags.`{PARENT_TAG}` = '{execution.info.run_id}'",
        order_by=_NEWEST_FIRST,
    )
    newest = {run.data.tags.get(STAGE_TAG): run for run in reversed(found)}
    return {family: newest[stage] for family, stage in MADE_BY.items() if stage in newest}


def _maker(client: "MlflowClient", run: "Run") -> "Run":
    """Return the run that made the outputs which a run, if it is a link, only refers to."""
    made_by = run.data.tags.get(REUSED_TAG)
    return get_run(client, made_by) if made_by else run


def _check_evaluated(execution: "Run", models: "Mapping[Family, LoggedModel]") -> None:
    """Check that the evaluated pair consists of the very models that were trained."""
    from diptych.models import pair_sha256

    sha256 = {family: model.tags.get("weights_sha256", "") for family, model in models.items()}
    if sha256["pair"] != pair_sha256({"cnn": sha256["cnn"], "vae": sha256["vae"]}):
        raise StoreError(
            f"run {execution.info.run_id}: must have evaluated the models that it holds "
            "(got an evaluation of other weights)"
        )
    members: tuple[Family, ...] = ("cnn", "vae")
    for family in members:
        described = models[family].tags.get("description_sha256")
        # Models that older code has logged lack the tag.
        if models["pair"].tags.get(member_description_tag(family), described) != described:
            raise StoreError(
                f"run {execution.info.run_id}: must have evaluated the models that it holds "
                f"(got an evaluation of another description of {family})"
            )


def _is_dirty(runs: "Sequence[Run]") -> bool | None:
    """Tell whether any of the runs had changed code; None when of one that is not known."""
    found = [run.data.tags.get(DIRTY_TAG) for run in runs]
    if "true" in found:
        return True
    return False if all(one == "false" for one in found) else None
