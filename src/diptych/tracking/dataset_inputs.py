"""Data sets as MLflow shows them: inputs of runs."""

import json
from typing import Any

from diptych.tracking.events import DatasetLogged

DATASET_TAG = "diptych.dataset_sha256"

_CONTEXT_TAG = "mlflow.data.context"
_PIPELINE_CONTEXT = "pipeline"
_MAX_DIGEST_CHARACTERS = 36  # MLflow's column; the tag and the profile hold the whole sha256


def log_dataset_input(
    client: Any, event: DatasetLogged, run_id: str, parent_run_id: str | None
) -> None:
    """Attach a data set to a run and to its parent; once, however often it is said.

    Args:
        client: An MlflowClient.
        event: The data set.
        run_id: The run that reads it.
        parent_run_id: The run of the whole pipeline, if there is one.
    """
    _attach(client, event, run_id, event.context)
    if parent_run_id is not None:
        _attach(client, event, parent_run_id, _PIPELINE_CONTEXT)


def _attach(client: Any, event: DatasetLogged, run_id: str, context: str) -> None:
    from mlflow.entities import DatasetInput, InputTag
    from mlflow.exceptions import MlflowException

    inputs = [DatasetInput(_dataset(event), [InputTag(_CONTEXT_TAG, context)])]
    try:
        client.log_inputs(run_id, inputs)
    except MlflowException:
        # Two processes that are the first to name a data set: the store refuses one of them.
        client.log_inputs(run_id, inputs)
    client.set_tag(run_id, DATASET_TAG, event.sha256)


def _dataset(event: DatasetLogged) -> Any:
    import numpy as np
    from mlflow.data.schema import TensorDatasetSchema
    from mlflow.entities import Dataset
    from mlflow.types import Schema, TensorSpec

    schema = TensorDatasetSchema(
        features=Schema([TensorSpec(np.dtype(np.uint8), (-1, *event.image_shape), "images")]),
        targets=Schema([TensorSpec(np.dtype(np.int64), (-1,), "labels")]),
    )
    profile = {
        "num_rows": sum(event.num_images.values()),
        **{f"num_{split}": number for split, number in event.num_images.items()},
        "sha256": event.sha256,
    }
    return Dataset(
        name=event.name,
        digest=event.sha256[:_MAX_DIGEST_CHARACTERS],
        source_type="local",
        source=json.dumps({"uri": event.source}),
        schema=json.dumps(schema.to_dict()),
        profile=json.dumps(profile),
    )
