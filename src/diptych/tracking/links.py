"""Runs that stand for another one: a stage that did not run again, and the run that made its files.

A link repeats what tables compare (params and last figures) and refers to all else.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from diptych.tracking.tags import (
    CODE_DIFF_TAG,
    COMMIT_TAG,
    DIRTY_TAG,
    FINGERPRINT_TAG,
    JOURNAL_TAG,
    LOGGED_AGAIN_TAG,
    PARENT_TAG,
    PRESET_TAG,
    REUSED_TAG,
    USER_TAG,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModelOutput, Run

# What is said of one run alone, or tells MLflow which artifacts it has.
_OWN_TAGS = frozenset(
    {
        JOURNAL_TAG,
        LOGGED_AGAIN_TAG,
        "mlflow.loggedArtifacts",
        "mlflow.loggedImages",
        "mlflow.note.content",
        PARENT_TAG,
        "mlflow.runName",
    }
)
# Which execution a run is part of, and who started it: said by the execution's own runs.
_EXECUTION_TAGS = (PRESET_TAG, "dvc.baseline", "dvc.experiment", USER_TAG)
# The code that the execution has.
_CODE_TAGS = (
    CODE_DIFF_TAG,
    DIRTY_TAG,
    COMMIT_TAG,
    "mlflow.source.type",
)


def find_maker(
    client: "MlflowClient", experiment_ids: Sequence[str], fingerprint: str
) -> "Run | None":
    """Return the run that made the outputs that a fingerprint stands for; None if it is gone.

    Of several, one of committed code, and then the oldest: a fingerprint knows the stage's own code
    alone, and what was uncommitted may have been other code.

    Args:
        client: Of the store.
        experiment_ids: Where to look, the first first.
        fingerprint: Of the stage: its params, data and code.
    """
    condition = (
        f"tags.`{FINGERPRINT_TAG}` = '{fingerprint}' AND tags.`{REUSED_TAG}` IS NULL"
        " AND attributes.status = 'FINISHED'"
    )
    oldest = ["attributes.start_time ASC"]
    for preference in (f" AND tags.`{DIRTY_TAG}` = 'false'", ""):
        for experiment_id in experiment_ids:
            found = client.search_runs(
                [experiment_id], condition + preference, max_results=1, order_by=oldest
            )
            if found:
                return found[0]
    return None


def link_tags(made: "Run", execution: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of a link: the other run's, as part of this execution.

    Args:
        made: The run that made the files.
        execution: The tags of a run of this execution.
    """
    info = made.info
    link = f"#/experiments/{info.experiment_id}/runs/{info.run_id}"
    kept = {
        key: value
        for key, value in made.data.tags.items()
        if key not in _OWN_TAGS and key not in _EXECUTION_TAGS
    }
    return {
        **kept,
        **_chosen(execution, _EXECUTION_TAGS),
        REUSED_TAG: info.run_id,
        "mlflow.note.content": f"Did not run again: [{info.run_name}]({link}) made its files.",
    }


def logged_again_tags(execution: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of a run that is logged again from its files.

    Args:
        execution: The tags of a run of this execution: what it says of code and user holds here
            too, since the stage's code is the same.
    """
    return {
        **_chosen(execution, _EXECUTION_TAGS + _CODE_TAGS),
        LOGGED_AGAIN_TAG: "true",
        "mlflow.note.content": "Logged from its files: the run that made them is not here.",
    }


def final_metrics(run: "Run") -> dict[tuple[int, int], dict[str, float]]:
    """Return a run's last figures by step and time in milliseconds."""
    found: dict[tuple[int, int], dict[str, float]] = {}
    for metric in run.data.to_proto().metrics:
        found.setdefault((metric.step, metric.timestamp), {})[metric.key] = metric.value
    return found


def attach_inputs_and_models(client: "MlflowClient", made: "Run", run_id: str) -> None:
    """Show another run's data sets and models as a run's own too; once, however often it is said.

    Args:
        client: Of the store.
        made: The other run.
        run_id: The run.
    """
    if made.inputs is not None and made.inputs.dataset_inputs:
        client.log_inputs(run_id, made.inputs.dataset_inputs)
    attach_models(client, made.outputs.model_outputs if made.outputs else [], run_id)


def attach_models(
    client: "MlflowClient", models: "Sequence[LoggedModelOutput]", run_id: str
) -> None:
    """Show models as a run's own; once, however often it is said.

    Args:
        client: Of the store.
        models: The models.
        run_id: The run.
    """
    shown = client.get_run(run_id).outputs
    known = {model.model_id for model in shown.model_outputs} if shown else set()
    if new := [model for model in models if model.model_id not in known]:
        client.log_outputs(run_id, new)


def _chosen(tags: Mapping[str, str], keys: Sequence[str]) -> dict[str, str]:
    return {key: tags[key] for key in keys if key in tags}
