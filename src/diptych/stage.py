"""The shell of a stage: a typed command line, and bad input as one line with exit code 2."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from diptych.errors import UserError

PathOption = Annotated[Path, typer.Option()]
"""A path that the caller must name: paths are written in dvc.yaml only."""


def run_stage(main: Callable[..., None]) -> None:
    """Run a stage's `main` as this process's command and end the process.

    Exit codes: 0 done, 2 bad input (one line on stderr), 130 interrupted, 143 terminated.
    """
    command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    command.command()(main)
    run_command(command)


def run_command(command: typer.Typer) -> None:
    """Run a command line as this process's and end the process, as `run_stage` does."""
    # As an exception, a SIGTERM passes every `finally` on its way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        sys.exit(command(standalone_mode=False))  # after Ctrl-C typer returns 130
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


def _says_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    # torch has no type of its own for it on a CPU; on a GPU OutOfMemoryError is a RuntimeError.
    phrases = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, MemoryError) or any(phrase in str(error) for phrase in phrases)


def _fail(message: str) -> None:
    command = Path(sys.argv[0]).stem
    print(f"{command}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
