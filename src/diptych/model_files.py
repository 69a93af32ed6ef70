"""What identifies a model on disk: `weights.safetensors` beside `model.json`, and their digests.

Without torch, which takes seconds to import.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diptych.files import FileError, read_json

MODEL_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
DIGESTS = ("weights_sha256", "description_sha256")
"""Keys of model.json, and tags of a logged model and a version, that say which model it is."""

_SEAL = "description_sha256"


class CheckpointError(FileError):
    """A model's files are missing, damaged or do not belong together."""


def load_model_description(folder: Path) -> dict[str, Any]:
    """Read a model's description.

    Raises:
        CheckpointError: when it is missing, or is not as it was written.
    """
    path = folder / MODEL_FILE
    description = read_json(path)
    expected, found = description.get(_SEAL), sealed(description)[_SEAL]
    if found != expected:
        wanted = str(expected) if str(expected).isalnum() else repr(expected)
        raise CheckpointError(f"{path}: {_SEAL}: must be {found} (got {wanted:.80})")
    return description


def sealed(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return a description with its `description_sha256`, the `fingerprint` of all the rest."""
    values = {key: value for key, value in description.items() if key != _SEAL}
    return {**values, _SEAL: fingerprint(values)}


def fingerprint(value: Mapping[str, Any]) -> str:
    """Return the sha256, in hexadecimal, of JSON values: equal values, equal fingerprints."""
    text = json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
