"""The shell of a command: bad input as one line with exit code 2, no traceback."""

import signal
import sys
from collections.abc import Callable

from diptych.errors import UserError


def run_command(name: str, main: Callable[[], int]) -> None:
    """Run a command as this process's and end the process.

    Exit codes: what `main` returns, 2 bad input (one line on stderr), 130 interrupted,
    143 terminated.

    Args:
        name: The command's, for its error line.
        main: Does the work.
    """
    # As an exception, a SIGTERM passes every `finally`, and ends the processes started, on its way.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        sys.exit(main())
    except UserError as error:
        _fail(name, str(error))
    except OSError as error:
        _fail(name, f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _fail(name: str, message: str) -> None:
    print(f"{name}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
