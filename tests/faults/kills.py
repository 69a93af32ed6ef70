"""A process that is killed in the midst of saving, by itself, at a call that was chosen before.

Where strace can stop a process at a system call, this works everywhere: Python tells of most calls
that change a file before it makes them, and of `fsync` this module sees to it.
"""

import itertools
import os
import resource
import signal
import sys
from dataclasses import dataclass

SIGNALS = (signal.SIGKILL, signal.SIGXFSZ)
"""What such a process dies of: in a write it is the system's own signal, as deadly."""

# What Python's audit events are called.
_CHANGES = ("open", "os.chmod", "os.rename", "os.remove")


@dataclass(frozen=True, slots=True)
class Kill:
    """When a process dies.

    Attributes:
        folder: Calls on paths with this in them count, and every `fsync`.
        call: The number, from 1, of the call that is not made any more: an `fsync`, `chmod`,
            `rename` or `remove`. At an `open` that makes a file the process goes on instead,
            until it writes more than so many bytes into one file, this or a later one.
        num_bytes: These.
    """

    folder: str
    call: int
    num_bytes: int

    def prepare(self) -> None:
        """Have this process be killed so."""
        numbers = itertools.count(1)
        fsync = os.fsync

        def die(event: str) -> None:
            if event == "open":
                _die_beyond(self.num_bytes)
            else:
                os.kill(os.getpid(), signal.SIGKILL)

        def look(event: str, arguments: tuple[object, ...]) -> None:
            if event in _CHANGES and self.folder in str(arguments[0]):
                makes_file = event != "open" or int(str(arguments[2])) & os.O_CREAT
                if makes_file and next(numbers) == self.call:
                    die(event)

        def counted_fsync(descriptor: int) -> None:
            if next(numbers) == self.call:
                die("fsync")
            fsync(descriptor)

        vars(os)["fsync"] = counted_fsync
        sys.addaudithook(look)


def _die_beyond(num_bytes: int) -> None:
    """Have the system write files up to a size only, and kill who goes on."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))
