"""The shell of a stage: a typed command line, and bad input as one line with exit code 2."""

import contextlib
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from diptych.errors import UserError
from diptych.execution import find_execution, is_running
from diptych.locks import try_lock
from diptych.tracking.printable import printable
from diptych.tracking.secrets import redacted

_LOCKS_FOLDER = Path(".diptych", "stages")
# A process whose pipeline has ended needs a moment to notice, and to save where it is.
_PATIENCE_SECONDS = 15.0
_WATCHING_SECONDS = 0.2
_WAITING_SECONDS = 0.1

PathOption = Annotated[Path, typer.Option()]
"""A path that the caller must name: paths are written in dvc.yaml only."""


class BusyError(UserError):
    """Another process is writing the same output."""


def run_stage(main: Callable[..., None]) -> None:
    """Run a stage's `main` as this process's command and end the process.

    Started by DVC, it ends with DVC, and never runs beside an earlier one of the same stage.
    Exit codes: 0 done, 2 bad input (one line on stderr), 130 interrupted, 143 terminated.
    """
    if stage := os.environ.get("DVC_STAGE"):
        _end_with_the_pipeline()
        main = _run_alone(main, stage)
    command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    command.command()(main)
    run_command(command)


@contextlib.contextmanager
def only_process(path: Path, wanted: str, doing: str) -> Iterator[None]:
    """Hold the lock of a file while the block runs; it ends with this process, however that ends.

    Args:
        path: The lock's file; made if it is not there.
        wanted: What must be, for the message.
        doing: What the process does that holds the lock, for the message.

    Raises:
        BusyError: when another process holds the lock and goes on doing so.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    with path.open("a+") as lock:
        while not try_lock(lock):
            if time.monotonic() > deadline:
                lock.seek(0)
                holder = lock.read() or "unknown"
                raise BusyError(f"{wanted}; process {holder} is {doing}: wait for it, or end it")
            time.sleep(_WAITING_SECONDS)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _run_alone(main: Callable[..., None], stage: str) -> Callable[..., None]:
    """Let a stage wait for one that an earlier, killed execution has left behind."""

    @functools.wraps(main)  # whose signature is the command line
    def alone(**arguments: object) -> None:
        lock = _LOCKS_FOLDER / f"{stage}.lock"
        with only_process(lock, f"{stage}: must run once at a time", "running it"):
            main(**arguments)

    return alone


def _end_with_the_pipeline() -> None:
    """Have this process terminated when DVC ends before it: a second writer may come after."""
    pipeline = find_execution()
    if pipeline is None:
        # DVC starts a stage in its own process group, as a Python program does that uses DVC.
        if os.getpgid(os.getppid()) != os.getpgrp():
            sys.exit(128 + signal.SIGTERM)  # it ended while this process imported
        return

    def watch() -> None:
        while is_running(pipeline):
            time.sleep(_WATCHING_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def run_command(command: typer.Typer) -> None:
    """Run a command line as this process's and end the process, as `run_stage` does."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = command(standalone_mode=False)
        if code == 128 + signal.SIGINT:  # what typer makes of Ctrl-C
            # One more would cut off the interpreter's end, and the exit code with it.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.exit(code)
    except UserError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except typer.Abort:  # Ctrl-C at a prompt
        sys.exit(128 + signal.SIGINT)
    except (MemoryError, RuntimeError) as error:
        if not _says_out_of_memory(error):
            raise
        _fail("not enough memory: must fit (smaller batch_size, width or num_hidden)")
    except typer.TyperException as error:
        _fail(error.format_message())


def _terminate(*_: object) -> None:
    """End as by an exception, which passes every `finally`; a second signal would cut these off."""
    signal.signal(signal.SIGTERM, lambda *_: None)
    sys.exit(128 + signal.SIGTERM)


def _says_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    # torch has no type of its own for it on a CPU; on a GPU OutOfMemoryError is a RuntimeError.
    phrases = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, MemoryError) or any(phrase in str(error) for phrase in phrases)


def _fail(message: str) -> None:
    command = Path(sys.argv[0]).stem
    line = printable(" ".join(message.split()))
    print(f"{command}: {redacted(line)}", file=sys.stderr)
    sys.exit(2)
