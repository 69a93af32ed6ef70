"""Trained models from disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from diptych.checkpoints import DESCRIPTION_FILE, CheckpointError, fill_model, load_model
from diptych.cnn.model import Cnn, build_cnn
from diptych.cnn.params import CnnTrainingParams
from diptych.files import read_json
from diptych.params import Params
from diptych.vae.model import Vae, build_vae
from diptych.vae.params import VaeTrainingParams

P = TypeVar("P", bound=Params)


def load_cnn(folder: Path) -> Cnn:
    """Load a classifier, on the CPU and in evaluation mode.

    Raises:
        CheckpointError: when files are missing, damaged, or not a classifier.
    """
    state, description = load_model(folder)
    params = _training_params(folder, description, "cnn", CnnTrainingParams)
    model = build_cnn(
        params,
        _image_shape(folder, description),
        len(_value(folder, description, "class_names")),
        _value(folder, description, "pixel_mean"),
        _value(folder, description, "pixel_standard_deviation"),
    )
    fill_model(model, state, folder)
    return model.eval()


def load_vae(folder: Path) -> Vae:
    """Load an autoencoder, on the CPU and in evaluation mode.

    Raises:
        CheckpointError: when files are missing, damaged, or not an autoencoder.
    """
    state, description = load_model(folder)
    params = _training_params(folder, description, "vae", VaeTrainingParams)
    model = build_vae(params, _image_shape(folder, description))
    fill_model(model, state, folder)
    return model.eval()


def load_trained(folder: Path) -> Cnn | Vae:
    """Load whichever model a folder holds, on the CPU and in evaluation mode.

    Raises:
        CheckpointError: when files are missing or damaged, or the family is not known.
    """
    path = folder / DESCRIPTION_FILE
    family = read_json(path).get("family")
    if family == "cnn":
        return load_cnn(folder)
    if family == "vae":
        return load_vae(folder)
    raise CheckpointError(f"{path}: family: must be 'cnn' or 'vae' (got {family!r})")


def _training_params(
    folder: Path, description: Mapping[str, Any], family: str, params_type: type[P]
) -> P:
    found = _value(folder, description, "family")
    where = folder / DESCRIPTION_FILE
    if found != family:
        raise CheckpointError(f"{where}: family: must be {family!r} (got {found!r})")
    try:
        return params_type.model_validate(_value(folder, description, "params"))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(["params", *map(str, first["loc"])])
        raise CheckpointError(f"{where}: {key}: {first['msg']}") from None


def _image_shape(folder: Path, description: Mapping[str, Any]) -> tuple[int, int, int]:
    shape = _value(folder, description, "image_shape")
    if not isinstance(shape, list) or len(shape) != 3:
        raise CheckpointError(
            f"{folder / DESCRIPTION_FILE}: image_shape: must be 3 sizes (got {shape!r})"
        )
    channels, height, width = shape
    return channels, height, width


def _value(folder: Path, description: Mapping[str, Any], key: str) -> Any:
    if key not in description:
        raise CheckpointError(f"{folder / DESCRIPTION_FILE}: {key}: this key is missing")
    return description[key]
