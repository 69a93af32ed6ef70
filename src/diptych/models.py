"""Trained models from disk, and the pair of two of them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from diptych.checkpoints import fill_model, load_model
from diptych.cnn.model import Cnn, build_cnn
from diptych.cnn.params import CnnTrainingParams
from diptych.files import folder_written_whole, read_json, write_atomically, write_json
from diptych.model_files import (
    MODEL_FILE,
    WEIGHTS_FILE,
    CheckpointError,
    load_model_description,
    sealed,
)
from diptych.novelty import PREFIX, NoveltyDetector, NoveltyReference, split_state
from diptych.pair.pair import Pair
from diptych.pair.params import PairParams
from diptych.vae.model import Vae, build_vae
from diptych.vae.params import VaeTrainingParams

MEMBERS = ("cnn", "vae")
"""Families of the pair's members, and the names of their folders in its folder."""

_Size = Annotated[int, Field(ge=1, le=10_000)]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


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


class _MembersDescription(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    cnn: _Sha256
    vae: _Sha256


class _PairDescription(_Description):
    abstention_level: Annotated[float, Field(ge=0, lt=1)]
    class_names: Annotated[list[str], Field(min_length=1)]
    members: _MembersDescription
    member_descriptions: _MembersDescription
    weights_sha256: _Sha256


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
    """Load an autoencoder, on the CPU and in evaluation mode; its novelty reference is left out.

    Raises:
        CheckpointError: when files are missing, damaged, or not an autoencoder.
    """
    model, _, _ = _load_vae(folder)
    return model


def load_novelty(folder: Path) -> NoveltyDetector:
    """Load an autoencoder with its novelty reference, on the CPU and in evaluation mode.

    Raises:
        CheckpointError: when files are missing, damaged, not an autoencoder, or without reference.
    """
    model, tensors, image_shape = _load_vae(folder)
    forms = {"uniforms": image_shape, "noise": (None, model.num_latents), "scores_nats": (None,)}
    for name, sizes in forms.items():
        if not _has_form(tensors.get(name), sizes):
            found = list(tensors[name].shape) if name in tensors else None
            expected = ", ".join("any" if size is None else str(size) for size in sizes)
            raise CheckpointError(
                f"{folder / WEIGHTS_FILE}: {PREFIX}{name}: must be float32 of shape [{expected}] "
                f"(got {found})"
            )
    reference = NoveltyReference(**{name: tensors[name] for name in forms})
    return NoveltyDetector(model, reference).eval()


def load_pair(folder: Path) -> Pair:
    """Load a classifier and the autoencoder that tells it when to abstain, on the CPU.

    Raises:
        CheckpointError: when files are missing or damaged, not a pair, or of different pairs.
    """
    described = _checked(folder, load_model_description(folder), "pair", _PairDescription)
    _check_members(folder, described)
    return Pair(
        load_cnn(folder / "cnn"),
        load_novelty(folder / "vae"),
        tuple(described.class_names),
        described.abstention_level,
    )


def load_trained(folder: Path) -> Cnn | Vae | Pair:
    """Load whichever model a folder holds, on the CPU and in evaluation mode.

    Raises:
        CheckpointError: when files are missing or damaged, or the family is not known.
    """
    path = folder / MODEL_FILE
    family = read_json(path).get("family")
    if family == "cnn":
        return load_cnn(folder)
    if family == "vae":
        return load_vae(folder)
    if family == "pair":
        return load_pair(folder)
    raise CheckpointError(f"{path}: family: must be 'cnn', 'vae' or 'pair' (got {family!r})")


def save_pair(folder: Path, cnn: Path, vae: Path, params: PairParams) -> dict[str, Any]:
    """Write a pair: copies of both models beside a description that names them by their digests.

    Args:
        folder: Where; it is replaced whole.
        cnn: A classifier, as `save_model` wrote it.
        vae: An autoencoder with its novelty reference, trained on the same data.
        params: When the pair abstains.

    Returns:
        The description as written.

    Raises:
        CheckpointError: when a model's files are missing or damaged.
    """
    sources = {"cnn": cnn, "vae": vae}
    described = {family: load_model(source)[1] for family, source in sources.items()}
    description = _describe_pair(described, params)
    with folder_written_whole(folder) as temporary:
        for family, source in sources.items():
            for name in (WEIGHTS_FILE, MODEL_FILE):
                write_atomically(temporary / family / name, (source / name).read_bytes())
        write_json(temporary / MODEL_FILE, description)
    return description


def pair_sha256(members: Mapping[str, str]) -> str:
    """Return what identifies a pair, from its members' `weights_sha256` by family."""
    text = "".join(f"{family}:{members[family]}\n" for family in MEMBERS)
    return hashlib.sha256(text.encode()).hexdigest()


def _describe_pair(
    described: Mapping[str, Mapping[str, Any]], params: PairParams
) -> dict[str, Any]:
    """Return what model.json says of a pair, from what it says of its members."""
    members = {family: described[family]["weights_sha256"] for family in MEMBERS}
    fingerprints = {family: described[family]["fingerprints"] for family in MEMBERS}
    description = {
        "family": "pair",
        "abstention_level": params.abstention_level,
        "image_shape": described["cnn"]["image_shape"],
        "class_names": described["cnn"]["class_names"],
        "members": members,
        "member_descriptions": {
            family: described[family]["description_sha256"] for family in MEMBERS
        },
        "weights_sha256": pair_sha256(members),
        "fingerprints": {
            "dataset": fingerprints["cnn"]["dataset"],
            "dataset_sha256": fingerprints["cnn"]["dataset_sha256"],
            "cnn_params_sha256": fingerprints["cnn"]["params_sha256"],
            "vae_params_sha256": fingerprints["vae"]["params_sha256"],
        },
    }
    return sealed(description)


def _load_vae(folder: Path) -> tuple[Vae, dict[str, Tensor], tuple[int, int, int]]:
    """Return the model, its novelty reference's tensors (not checked) and its images' shape."""
    state, description = load_model(folder)
    described = _checked(folder, description, "vae", _VaeDescription)
    own, reference = split_state(state)
    model = build_vae(described.params, described.shape)
    fill_model(model, own, folder)
    return model.eval(), reference, described.shape


def _has_form(tensor: Tensor | None, sizes: tuple[int | None, ...]) -> bool:
    """Tell whether a tensor is float32 of such sizes; None stands for any size >= 1."""
    if tensor is None or tensor.dtype != torch.float32 or tensor.dim() != len(sizes):
        return False
    pairs = zip(tensor.shape, sizes, strict=True)
    return all(found >= 1 and size in (None, found) for found, size in pairs)


def _check_members(folder: Path, described: _PairDescription) -> None:
    """Check that the pair is of these two models, by what their descriptions say."""
    path, members = folder / MODEL_FILE, described.members.model_dump()
    descriptions = described.member_descriptions.model_dump()
    if (identity := pair_sha256(members)) != described.weights_sha256:
        raise CheckpointError(
            f"{path}: weights_sha256: must be {identity}, of its members "
            f"(got {described.weights_sha256})"
        )
    for family in MEMBERS:
        member_path = folder / family / MODEL_FILE
        member = read_json(member_path)
        wanted: dict[str, Any] = {
            "weights_sha256": members[family],
            "description_sha256": descriptions[family],
            "image_shape": described.image_shape,
        }
        if family == "cnn":
            wanted["class_names"] = described.class_names
        for key, value in wanted.items():
            if (found := member.get(key)) != value:
                raise CheckpointError(
                    f"{member_path}: {key}: must be {value} as in {path} (got {found})"
                )


def _checked(
    folder: Path, description: Mapping[str, Any], family: str, description_type: type[D]
) -> D:
    path = folder / MODEL_FILE
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
