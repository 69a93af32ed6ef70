"""Models and trainings on disk, checked before they are parsed; nothing in them is executed.

A model is `weights.safetensors` beside `model.json`. The state of a training is one safetensors
file, beside its sha256, which is written last.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diptych.files import folder_written_whole, write_atomically, write_json
from diptych.model_files import (
    MODEL_FILE,
    WEIGHTS_FILE,
    CheckpointError,
    check_sha256,
    load_model_description,
    sealed,
)

DIGEST_SUFFIX = ".sha256"

_VALUES = "/"  # no path of a tensor


def save_model(
    folder: Path, state: Mapping[str, Tensor], description: Mapping[str, Any]
) -> dict[str, Any]:
    """Write a model; equal weights and description give equal bytes.

    Args:
        folder: Where; it is replaced whole.
        state: The model's `state_dict()`; tensors may live on any device.
        description: JSON values: what it takes to build the model again, and where it comes from.

    Returns:
        The description as written: with `weights_sha256` and `description_sha256` added.
    """
    import safetensors.torch

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    weights = safetensors.torch.save(tensors)
    written = sealed({**description, "weights_sha256": hashlib.sha256(weights).hexdigest()})
    with folder_written_whole(folder) as temporary:
        write_atomically(temporary / WEIGHTS_FILE, weights)
        write_json(temporary / MODEL_FILE, written)
    return written


def load_model(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a model's weights (on the CPU) and description. Nothing in the files is executed.

    Raises:
        CheckpointError: when a file is missing or damaged, or the weights are not those described.
    """
    import safetensors.torch

    weights_path = folder / WEIGHTS_FILE
    description = load_model_description(folder)
    if not weights_path.is_file():
        raise CheckpointError(f"{weights_path}: is missing")
    weights = weights_path.read_bytes()
    digest = hashlib.sha256(weights).hexdigest()
    check_sha256(weights_path, "sha256 must be", description.get("weights_sha256"), digest)
    try:
        return safetensors.torch.load(weights), description
    except (safetensors.SafetensorError, KeyError) as error:  # KeyError: a dtype torch has not
        raise CheckpointError(f"{weights_path}: is not valid safetensors ({error})") from None


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


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write the state of a training; a kill at any moment leaves it whole or not there.

    Args:
        path: The file, `<name>.safetensors`; beside it comes `<name>.sha256`.
        state: Nested dicts with string keys without `/`; leaves are tensors or JSON values.
    """
    import safetensors.torch

    tensors: dict[str, Tensor] = {}
    values = json.dumps(_without_tensors(state, "", tensors), allow_nan=False).encode()
    tensors[_VALUES] = torch.frombuffer(bytearray(values), dtype=torch.uint8)
    content = safetensors.torch.save(tensors)
    write_atomically(path, content)
    digest = hashlib.sha256(content).hexdigest()
    write_atomically(path.with_suffix(DIGEST_SUFFIX), digest.encode())


def load_state(path: Path) -> dict[str, Any]:
    """Read the state of a training, as `save_state` wrote it; tensors are on the CPU.

    Raises:
        CheckpointError: when a file is missing or damaged.
    """
    import safetensors.torch

    try:
        content = path.read_bytes()
        expected = path.with_suffix(DIGEST_SUFFIX).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{error.filename}: cannot be read ({error.strerror})") from None
    found = hashlib.sha256(content).hexdigest()
    if found.encode() != expected:
        wanted = expected[:64].decode(errors="replace")
        raise CheckpointError(f"{path}: sha256 must be {wanted} (got {found})")
    try:
        tensors = safetensors.torch.load(content)
        values = json.loads(tensors.pop(_VALUES).numpy().tobytes())
        state: dict[str, Any] = _with_tensors(values, "", tensors)
    except Exception as error:  # what another program wrote may raise anything
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: is no state of a training ({reason})") from None
    return state


def _without_tensors(state: Mapping[str, Any], prefix: str, tensors: dict[str, Tensor]) -> Any:
    """Move a state's tensors to where they are named by their path; return what is left."""
    values: dict[str, Any] = {}
    for key, value in state.items():
        name = f"{prefix}{key}"
        if isinstance(value, Tensor):
            # A copy, for two names may stand for the same memory.
            tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        elif isinstance(value, Mapping):
            values[key] = _without_tensors(value, f"{name}/", tensors)
        else:
            values[key] = value
    return values


def _with_tensors(values: Any, prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    state: dict[str, Any] = {
        key: _with_tensors(value, f"{prefix}{key}/", tensors) if isinstance(value, dict) else value
        for key, value in values.items()
    }
    for name, tensor in tensors.items():
        if name.startswith(prefix) and "/" not in (key := name.removeprefix(prefix)):
            state[key] = tensor
    return state
