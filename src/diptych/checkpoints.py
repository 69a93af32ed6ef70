"""Models on disk: `weights.safetensors` beside `model.json`, checked before they are parsed."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diptych.files import (
    FileError,
    folder_written_whole,
    read_json,
    write_atomically,
    write_json,
)

WEIGHTS_FILE = "weights.safetensors"
DESCRIPTION_FILE = "model.json"


class CheckpointError(FileError):
    """A model's files are missing, damaged or do not belong together."""


def save_model(
    folder: Path, state: Mapping[str, Tensor], description: Mapping[str, Any]
) -> dict[str, Any]:
    """Write a model; equal weights and description give equal bytes.

    Args:
        folder: Where; it is replaced whole.
        state: The model's `state_dict()`; tensors may live on any device.
        description: JSON values: what it takes to build the model again, and where it comes from.

    Returns:
        The description as written: with `weights_sha256` added.
    """
    import safetensors.torch

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    weights = safetensors.torch.save(tensors)
    written = {**description, "weights_sha256": hashlib.sha256(weights).hexdigest()}
    with folder_written_whole(folder) as temporary:
        write_atomically(temporary / WEIGHTS_FILE, weights)
        write_json(temporary / DESCRIPTION_FILE, written)
    return written


def load_model(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a model's weights (on the CPU) and description. Nothing in the files is executed.

    Raises:
        CheckpointError: when a file is missing or the weights are not the ones described.
    """
    import safetensors.torch

    weights_path = folder / WEIGHTS_FILE
    description = read_json(folder / DESCRIPTION_FILE)
    if not weights_path.is_file():
        raise CheckpointError(f"{weights_path}: is missing")
    weights = weights_path.read_bytes()
    expected, found = description.get("weights_sha256"), hashlib.sha256(weights).hexdigest()
    if found != expected:
        raise CheckpointError(f"{weights_path}: sha256 must be {expected} (got {found})")
    try:
        return safetensors.torch.load(weights), description
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{weights_path}: is not valid safetensors ({error})") from None


def fingerprint(value: Mapping[str, Any]) -> str:
    """Return the sha256, in hexadecimal, of JSON values: equal values, equal fingerprints."""
    text = json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def fill_model(model: torch.nn.Module, state: Mapping[str, Tensor], folder: Path) -> None:
    """Put loaded weights into a model.

    Raises:
        CheckpointError: when names or shapes differ.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{folder / WEIGHTS_FILE}: does not fit the model ({reason})"
        ) from None
