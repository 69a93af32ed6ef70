"""A model's folder in the form that MLflow loads and serves."""

import importlib.metadata
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diptych.files import read_json, write_json
from diptych.model_files import MODEL_FILE

_SERVED_BY = "diptych.tracking.served"
_REQUIREMENTS = (
    "jaxtyping",
    "mlflow",
    "numpy",
    "pandas",
    "pydantic",
    "ruamel.yaml",
    "safetensors",
    "torch",
)


def pack_model(
    packed: Path, folder: Path, image_shape: Sequence[int], identity: Mapping[str, Any]
) -> None:
    """Wrap a model's folder in what `mlflow.pyfunc.load_model` reads; no pickle, no inference.

    Args:
        packed: The folder to make.
        folder: The model, as `save_model` or `save_pair` wrote it.
        image_shape: Channels, height and width of the images that it takes.
        identity: What MLflow calls the model and its run.
    """
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
            outputs=_answers(read_json(folder / MODEL_FILE)),
        ),
        input_example=np.zeros((2, *image_shape), dtype=np.uint8),
        mlflow_model=Model(**identity),
    )


def prepare_packing() -> None:
    """Do beforehand what only the first packing takes: it looks at every installed package."""
    with tempfile.TemporaryDirectory(prefix="diptych-") as temporary:
        nothing = Path(temporary, "model")
        write_json(nothing / MODEL_FILE, {"family": "cnn"})
        pack_model(Path(temporary, "packed"), nothing, (1, 1, 1), {})


def probability_column(class_name: str) -> str:
    """Return what the probability of a class is called in a pair's answers."""
    return f"probability_{class_name}"


def _answers(description: Mapping[str, Any]) -> Any:
    """Return the schema of answers: named columns (pair) or a row of numbers per image."""
    import numpy as np
    from mlflow.types import ColSpec, Schema, TensorSpec

    if description.get("family") != "pair":
        return Schema([TensorSpec(np.dtype(np.float32), (-1, -1))])
    return Schema(
        [
            ColSpec("string", "class"),
            ColSpec("double", "confidence"),
            ColSpec("double", "novelty_p_value"),
            ColSpec("string", "decision"),
            *(ColSpec("double", probability_column(name)) for name in description["class_names"]),
        ]
    )


def _public_version(package: str) -> str:
    return importlib.metadata.version(package).partition("+")[0]
