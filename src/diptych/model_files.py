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

_DESCRIPTION = DIGESTS[1]


class CheckpointError(FileError):
    """A model's files are missing, damaged or do not belong together."""


def load_model_description(folder: Path) -> dict[str, Any]:
    """Read a model's description.

    Raises:
        CheckpointError: when it cannot be read, or is not as it was written.
    """
    path = folder / MODEL_FILE
    try:
        description = read_json(path)
        found = sealed(description)[_DESCRIPTION]
    except FileError as error:
        raise CheckpointError(str(error)) from None
    except (ValueError, RecursionError) as error:  # 1e999 is a number of JSON, and infinite
        raise CheckpointError(f"{path}: is not valid JSON ({error})") from None
    if _DESCRIPTION not in description:
        raise CheckpointError(
            f"{path}: {_DESCRIPTION}: is missing, as older code left it out: make the model again"
        )
    check_sha256(path, f"{_DESCRIPTION}: must be", description[_DESCRIPTION], found)
    return description


def check_sha256(path: Path, must: str, expected: object, found: str) -> None:
    """Compare a digest with what a description, which may hold anything, says of it.

    Args:
        path: What the digest is of, for the message.
        must: What is said of it before the expected one.
        expected: The digest that is written down.
        found: The digest.

    Raises:
        CheckpointError: when they differ.
    """
    if found != expected:
        wanted = str(expected) if str(expected).isalnum() else repr(expected)
        raise CheckpointError(f"{path}: {must} {wanted:.80} (got {found})")


def sealed(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return a description with its `description_sha256`, the `fingerprint` of all the rest."""
    values = {key: value for key, value in description.items() if key != _DESCRIPTION}
    return {**values, _DESCRIPTION: fingerprint(values)}


def fingerprint(value: Mapping[str, Any]) -> str:
    """Return the sha256, in hexadecimal, of JSON values: equal values, equal fingerprints."""
    text = json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
