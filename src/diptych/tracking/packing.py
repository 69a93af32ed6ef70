"""A model's folder in the form that MLflow loads and serves."""

import functools
import importlib.metadata
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from diptych.files import read_json, write_json
from diptych.model_files import MODEL_FILE

_PACKAGE = Path(__file__).parents[1]
_SERVED_BY = "diptych.tracking.served"
_IMPORTED = re.compile(r"^\s*(?:from|import) (diptych[\w.]*)", re.MULTILINE)
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

    The loader's own code goes with it, for machines that have its requirements and not this
    package. What identifies the model is in the folder alone.

    Args:
        packed: The folder to make.
        folder: The model, as `save_model` or `save_pair` wrote it.
        image_shape: Channels, height and width of the images that it takes.
        identity: What MLflow calls the model and its run.
    """
    import mlflow.pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    with tempfile.TemporaryDirectory(prefix="diptych-") as temporary:
        code = Path(temporary, _PACKAGE.name)
        for file in _loader_files():
            (code / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(_PACKAGE / file, code / file)
        mlflow.pyfunc.save_model(
            path=str(packed),
            loader_module=_SERVED_BY,
            data_path=str(folder),
            code_paths=[str(code)],
            pip_requirements=[f"{name}=={_public_version(name)}" for name in _REQUIREMENTS],
            signature=ModelSignature(
                inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, *image_shape))]),
                outputs=_answers(read_json(folder / MODEL_FILE)),
            ),
            input_example=_gradients(image_shape),
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


@functools.cache
def _loader_files() -> frozenset[Path]:
    """Return the files of this package that the loader imports, by their paths within it."""
    found: set[Path] = set()
    wanted = [_SERVED_BY]
    while wanted:
        for file in _files_of(wanted.pop()):
            if file not in found:
                found.add(file)
                wanted += _IMPORTED.findall((_PACKAGE / file).read_text(encoding="utf-8"))
    return frozenset(found)


def _files_of(module: str) -> Iterator[Path]:
    """Yield the file of a module of this package, and those of the packages that it lies in."""
    place = Path(*module.split(".")[1:])
    for package in (place, *place.parents):
        if (_PACKAGE / package).is_dir():
            yield package / "__init__.py"
    if not (_PACKAGE / place).is_dir():
        yield place.with_suffix(".py")


def _gradients(image_shape: Sequence[int]) -> UInt8[np.ndarray, "2 c h w"]:
    """Return images from black to white, across and down; a model's folder holds no real one."""
    channels, height, width = image_shape
    across = np.broadcast_to(np.linspace(0, 255, width), (height, width))
    down = np.broadcast_to(np.linspace(0, 255, height)[:, None], (height, width))
    images = np.stack([across, down]).round().astype(np.uint8)
    return np.repeat(images[:, None], channels, axis=1)


def _answers(description: Mapping[str, Any]) -> Any:
    """Return the schema of answers: named columns (pair) or a row of numbers per image."""
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
