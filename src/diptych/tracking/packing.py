"""A model's folder in the form that MLflow loads and serves."""

import ast
import functools
import importlib.metadata
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from diptych.files import read_json, write_json
from diptych.model_files import MODEL_FILE

_PACKAGE = Path(__file__).parents[1]
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
        for file in imported_files(_PACKAGE, _SERVED_BY):
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
def imported_files(package: Path, module: str) -> frozenset[Path]:
    """Return the files of a package that importing one of its modules may take, this one's too.

    Args:
        package: The package's folder, which has its name.
        module: The module's dotted name, from the package's on.

    Returns:
        Their paths within the package.
    """
    found: set[Path] = set()
    wanted = [module]
    while wanted:
        for file in _files_of(package, wanted.pop()):
            if file not in found:
                found.add(file)
                wanted += _imported_names(package, file)
    return frozenset(found)


def _imported_names(package: Path, file: Path) -> Iterator[str]:
    """Return the names within the package that a file imports: modules, and what may be one."""
    parent = ".".join((package.name, *file.parent.parts))
    names: list[str] = []
    for node in ast.walk(ast.parse((package / file).read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name(f"{'.' * node.level}{node.module or ''}", parent)
            # Of `from a import b`, b is a module of its own or stands in a.
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return (name for name in names if name.partition(".")[0] == package.name)


def _files_of(package: Path, name: str) -> Iterator[Path]:
    """Return the file of a module, if it is one, and those of the packages that it lies in."""
    place = Path(*name.split(".")[1:])
    files = [one / "__init__.py" for one in (place, *place.parents)]
    files += [place.with_suffix(".py")] if place.name else []
    return (file for file in files if (package / file).is_file())


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
