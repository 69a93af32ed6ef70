"""Waiting for what other processes do, for so long and not for ever."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from diptych.tracking.mlflow_tracker import JOURNALS_FOLDER
from diptych.tracking.process import is_recorder_alive

T = TypeVar("T")


def wait_until(condition: Callable[[], T], seconds: float, pause_seconds: float = 0.02) -> T:
    """Return a condition's first true answer, or its last one when the time is over."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()) and time.monotonic() < deadline:
        time.sleep(pause_seconds)
    return answer


def is_recorded(root: Path) -> bool:
    """Tell whether no recorder works in a project any more."""
    return not any(map(is_recorder_alive, (root / JOURNALS_FOLDER).glob("*")))


def wait_for_recorders(root: Path, seconds: float = 120.0) -> None:
    """Wait until all is recorded that a project's recorders have to record."""
    # Recorders give way to whoever asks.
    assert wait_until(lambda: is_recorded(root), seconds, pause_seconds=0.1)
