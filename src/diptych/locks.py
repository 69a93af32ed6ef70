"""Locks of the operating system: a process that ends, however it ends, holds none."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_POLLING_SECONDS = 0.001


def try_lock(file: IO[Any]) -> bool:
    """Lock an open file if nobody else has; every copy of its descriptor holds the lock.

    Whoever only looks, by `is_locked`, keeps nobody from it.
    """
    while not _is_granted(file, fcntl.LOCK_EX):
        if not _is_granted(file, fcntl.LOCK_SH):
            return False
        # A look, which is over at once, was in the way.
        fcntl.flock(file, fcntl.LOCK_UN)
        time.sleep(_POLLING_SECONDS)
    return True


def is_locked(path: Path) -> bool:
    """Tell whether a process holds a file's lock; a missing file has none."""
    try:
        with path.open("rb") as file:
            return not _is_granted(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Wait for the lock of a folder itself and hold it: no lock file stays behind."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_granted(file: IO[Any], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
