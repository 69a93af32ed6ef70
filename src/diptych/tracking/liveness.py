"""Which process a run belongs to, as a tag of the run, and whether that process has ended.

A process's number alone says little: it is given out again, after a restart of the machine, in
another container, and once all others have been used.
"""

import hashlib
import os
import platform
from contextlib import suppress
from pathlib import Path

import psutil

from diptych.execution import boot_id, is_running, process_key

PROCESS_TAG = "diptych.process"


def process_tag(process: psutil.Process) -> str:
    """Return the value of `diptych.process` for the runs of a process of this machine."""
    return "/".join((machine_key(), boot_id(), _visibility(), process_key(process)))


def machine_key() -> str:
    """Return what tells this machine from every other: its name and the system installed on it.

    Without such a system's id only one boot can be told: then the key changes with it.
    """
    system = _text(Path("/etc/machine-id")) or boot_id()
    return hashlib.sha256(f"{platform.node()}\n{system}".encode()).hexdigest()[:16]


class Census:
    """The processes that this one can see, at the moment of its creation."""

    def __init__(self) -> None:
        self._machine, self._boot, self._visible = machine_key(), boot_id(), _visibility()
        self._keys = set()
        for number in psutil.pids():  # `process_iter` keeps what it has once read
            with suppress(psutil.Error):
                process = psutil.Process(number)
                if is_running(process):
                    self._keys.add(process_key(process))

    def has_ended(self, tag: str) -> bool:
        """Tell whether the process of a tag has ended; False when that cannot be known for sure.

        Args:
            tag: As `process_tag` returns it, read before this census was made.
        """
        match tag.split("/"):
            case [self._machine, boot, visible, key]:
                is_visible = visible == self._visible
                return boot != self._boot or (is_visible and key not in self._keys)
        return False


def _visibility() -> str:
    """Return what processes have in common that see each other: a container, and a user."""
    container = ""
    with suppress(OSError):
        container = str(Path("/proc/self/ns/pid").readlink())
    return f"{container}:{os.getuid()}"


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8").strip()
    return ""
