"""Which runs of a pipeline execution made a model and evaluated it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diptych.promotion.record import Family
from diptych.tracking.client import StoreError, is_missing
from diptych.tracking.links import REUSED_TAG
from diptych.tracking.recorder import EXECUTION_TAG, member_description_tag

MADE_BY: Mapping[Family, str] = {"cnn": "train_cnn", "vae": "train_vae", "pair": "evaluate"}
"""The stage that makes a family's models."""

STAGE_TAG = "diptych.stage"

_DIRTY_TAG = "diptych.git_dirty"
_PARENT_TAG = "mlflow.parentRunId"
_NEWEST_FIRST = ["attributes.start_time DESC"]


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
    model: Any
    evaluation_run_id: str | None
    is_dirty: bool | None
    tags: Mapping[str, str]


def find_origin(client: Any, experiment: str, family: Family, run_id: str | None) -> Origin:
    """Find the model of a pipeline execution.

    Args:
        client: An MlflowClient.
        experiment: The experiment's name.
        family: Which of the models.
        run_id: Run of an execution, or of one of its stages; None for the newest finished
            execution.

    Raises:
        StoreError: when there is no such run, one of the stages has no finished run, or the
            execution evaluated other models.
    """
    given = _newest_execution(client, experiment) if run_id is None else get_run(client, run_id)
    execution = _execution_of(client, given)
    runs = {one: _stage_run(client, execution, stage) for one, stage in MADE_BY.items()}
    if given.data.tags.get(STAGE_TAG) == MADE_BY[family]:
        runs[family] = given
    runs = {one: _maker(client, run) for one, run in runs.items()}
    models = {one: _model_of(client, run, one) for one, run in runs.items()}
    _check_evaluated(execution, models)
    made_by = runs[family]
    # Its figures count too: all of them are from the run that evaluated the pair.
    counted = list(runs.values()) if family == "pair" else [made_by, runs["pair"]]
    return Origin(
        run_id=made_by.info.run_id,
        model=models[family],
        evaluation_run_id=runs["pair"].info.run_id,
        is_dirty=_is_dirty(counted),
        tags=made_by.data.tags,
    )


def get_run(client: Any, run_id: str) -> Any:
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


def _model_of(client: Any, run: Any, family: Family) -> Any:
    """Return the newest model of a family that a run has logged.

    Raises:
        StoreError: when there is none.
    """
    condition = f"source_run_id = '{run.info.run_id}' AND name = '{family}'"
    found = client.search_logged_models([run.info.experiment_id], condition)
    if not found:
        raise StoreError(f"run {run.info.run_id}: must have logged the model {family} (got none)")
    return max(found, key=lambda model: int(model.creation_timestamp))


def _newest_execution(client: Any, experiment: str) -> Any:
    found = client.get_experiment_by_name(experiment)
    runs = found and client.search_runs(
        [found.experiment_id],
        f"attributes.status = 'FINISHED' AND tags.`{EXECUTION_TAG}` != ''",
        max_results=1,
        order_by=_NEWEST_FIRST,
    )
    if not runs:
        raise StoreError(f"experiment {experiment}: must have a finished pipeline run (got none)")
    return runs[0]


def _execution_of(client: Any, run: Any) -> Any:
    """Return the run of the execution that a run is, or is a stage of."""
    if STAGE_TAG not in run.data.tags:
        return run
    parent = run.data.tags.get(_PARENT_TAG)
    if parent is None:
        raise StoreError(
            f"run {run.info.run_id}: must be part of a pipeline run, which evaluates the model "
            "(got a stage that was run alone)"
        )
    return get_run(client, parent)


def _stage_run(client: Any, execution: Any, stage: str) -> Any:
    run_id = execution.info.run_id
    found = client.search_runs(
        [execution.info.experiment_id],
        f"attributes.status = 'FINISHED' AND tags.`{_PARENT_TAG}` = '{run_id}' "
        f"AND tags.`{STAGE_TAG}` = '{stage}'",
        max_results=1,
        order_by=_NEWEST_FIRST,
    )
    if not found:
        raise StoreError(f"run {run_id}: must have a finished stage {stage} (got none)")
    return found[0]


def _maker(client: Any, run: Any) -> Any:
    """Return the run that made the outputs which a run, if it is a link, only refers to."""
    made_by = run.data.tags.get(REUSED_TAG)
    return get_run(client, made_by) if made_by else run


def _check_evaluated(execution: Any, models: Mapping[Family, Any]) -> None:
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


def _is_dirty(runs: Sequence[Any]) -> bool | None:
    """Tell whether any of the runs had changed code; None when of one that is not known."""
    found = [run.data.tags.get(_DIRTY_TAG) for run in runs]
    if "true" in found:
        return True
    return False if all(one == "false" for one in found) else None
