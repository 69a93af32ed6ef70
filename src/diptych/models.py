"""Trained models from disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from diptych.checkpoints import DESCRIPTION_FILE, CheckpointError, fill_model, load_model
from diptych.cnn.model import Cnn, build_cnn
from diptych.cnn.params import CnnTrainingParams
from diptych.files import read_json
from diptych.vae.model import Vae, build_vae
from diptych.vae.params import VaeTrainingParams

_Size = Annotated[int, Field(ge=1)]


class _Description(BaseModel):
    """What it takes to build a model again; model.json says more."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)

    image_shape: Annotated[list[_Size], Field(min_length=3, max_length=3)]

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.image_shape
        return channels, height, width


class _CnnDescription(_Description):
    params: CnnTrainingParams
    class_names: Annotated[list[str], Field(min_length=1)]
    pixel_mean: list[float]
    pixel_standard_deviation: list[float]


class _VaeDescription(_Description):
    params: VaeTrainingParams


D = TypeVar("D", bound=_Description)


def load_cnn(folder: Path) -> Cnn:
    """Load a classifier, on the CPU and in evaluation mode.

    Raises:
        CheckpointError: when files are missing, damaged, or not a classifier.
    """
    state, description = load_model(folder)
    described = _checked(folder, description, "cnn", _CnnDescription)
    model = build_cnn(
        described.params,
        described.shape,
        len(described.class_names),
        described.pixel_mean,
        described.pixel_standard_deviation,
    )
    fill_model(model, state, folder)
    return model.eval()


def load_vae(folder: Path) -> Vae:
    """Load an autoencoder, on the CPU and in evaluation mode.

    Raises:
        CheckpointError: when files are missing, damaged, or not an autoencoder.
    """
    state, description = load_model(folder)
    described = _checked(folder, description, "vae", _VaeDescription)
    model = build_vae(described.params, described.shape)
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


def _checked(
    folder: Path, description: Mapping[str, Any], family: str, description_type: type[D]
) -> D:
    path = folder / DESCRIPTION_FILE
    found = description.get("family")
    if found != family:
        raise CheckpointError(f"{path}: family: must be {family!r} (got {found!r})")
    try:
        return description_type.model_validate(description)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        got = "" if first["type"] == "missing" else f" (got {first['input']!r:.80})"
        raise CheckpointError(f"{path}: {key}: {first['msg']}{got}") from None
