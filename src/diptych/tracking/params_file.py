"""The whole parameter file of a run, kept with it: logged params are text without a type."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from diptych.tracking.pipeline import PARAMS_FILE
from diptych.tracking.secrets import redacted
from diptych.tracking.tracker import Tracker


def log_params_file(tracker: Tracker, path: Path, content: Mapping[str, object]) -> None:
    """Record a parameter file, credentials masked, as the artifact `params.yaml`.

    Args:
        tracker: What is told.
        path: The file.
        content: What it holds, as `read_yaml` returns it.
    """
    with suppress(OSError), TemporaryDirectory(prefix="diptych-") as folder:
        copy = Path(folder, PARAMS_FILE)
        copy.write_text(params_text(path.read_text(encoding="utf-8"), content), encoding="utf-8")
        tracker.log_artifact(copy)  # which copies it at once


def params_text(text: str, content: Mapping[str, object]) -> str:
    """Return a parameter file's text as it may be kept with a run: without credentials.

    Args:
        text: The file's.
        content: What it holds, as `read_yaml` returns it.

    Returns:
        The text itself; or, if it holds an address with a user, a password or a query, the content
        with these masked, in JSON's form of YAML; comments are lost then.
    """
    if redacted(text) == text:
        return text
    masked = json.dumps(_masked(content), indent=2, ensure_ascii=False, default=str)
    # JSON's own escapes are half characters to YAML, which does not take control characters.
    return re.sub(r"[^\n -~]", lambda match: f"\\U{ord(match[0]):08x}", masked) + "\n"


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {key: _masked(one) for key, one in value.items()}
    return [_masked(one) for one in value] if isinstance(value, list) else value
