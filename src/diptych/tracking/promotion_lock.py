"""One promotion or rollback of a model at a time, over processes and machines.

MLflow has no lock and no compare-and-set, but a registered model's name is unique and a listing
sees every one that was created before. Who wants the lock creates a model with a name of its own,
a ticket, and holds the lock if a listing made afterwards shows no other ticket. Of two that see
each other one steps back, so that two never hold it. A ticket's name is never used again: deleting
a dead holder's cannot hit anybody else's.
"""

import getpass
import os
import platform
import random
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from diptych.errors import UserError
from diptych.execution import is_running, process_key
from diptych.tracking.client import is_missing
from diptych.tracking.tracker import now_ms

STALE_SECONDS = 600.0
"""No holder takes so long: it is minutes of computing that happen outside of the lock."""

PATIENCE_SECONDS = 60.0

_POLLING_SECONDS = (0.02, 0.1)


class LockError(UserError):
    """The lock could not be had, or was lost."""


def user_and_host() -> str:
    """Return who acts here."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # an account without a name
        user = str(os.getuid())
    return f"{user}@{platform.node()}"


@contextmanager
def promotion_lock(
    client: Any,
    name: str,
    notice: Callable[[str], None],
    patience_seconds: float = PATIENCE_SECONDS,
) -> Iterator[Callable[[], None]]:
    """Hold a registered model's lock while the block runs.

    Args:
        client: An MlflowClient.
        name: The registered model's, which need not exist.
        notice: Told in one line of a dead holder whose lock is taken over.
        patience_seconds: The longest wait.

    Yields:
        What raises LockError if somebody has taken the lock over.

    Raises:
        LockError: when somebody else holds it all the time.
    """
    prefix = f"{name}.lock."
    ticket = f"{prefix}{now_ms():013d}-{secrets.token_hex(8)}"
    try:
        _wait(client, prefix, ticket, notice, time.monotonic() + patience_seconds)
        yield lambda: _check(client, ticket)
    finally:
        _delete(client, ticket)


def _wait(
    client: Any, prefix: str, ticket: str, notice: Callable[[str], None], deadline: float
) -> None:
    """Return once this ticket is the only one."""
    is_there = False
    while True:
        others = _other_tickets(client, prefix, ticket, notice)
        if is_there and not others:
            return
        if not others:
            client.create_registered_model(ticket, _holder_tags())
            is_there = True
            continue
        if time.monotonic() > deadline:
            raise LockError(_busy(prefix, others[0]))
        # The one that came first keeps its ticket and is next.
        if is_there and others[0].name < ticket:
            _delete(client, ticket)
            is_there = False
        time.sleep(random.uniform(*_POLLING_SECONDS))  # noqa: S311  # no secret


def _other_tickets(client: Any, prefix: str, own: str, notice: Callable[[str], None]) -> list[Any]:
    """Return the tickets of living holders, oldest first; those of dead ones are deleted."""
    # In LIKE an underscore stands for any character: the names are compared again.
    found = client.search_registered_models(f"name LIKE '{prefix}%'", max_results=1000)
    others = [one for one in found if one.name.startswith(prefix) and one.name != own]
    living = []
    for other in sorted(others, key=lambda one: str(one.name)):
        if reason := _reason_of_death(other):
            notice(
                f"{prefix.removesuffix('.lock.')}: took over the lock of {_shown(other)}: {reason}"
            )
            _delete(client, other.name)
        else:
            living.append(other)
    return living


def _holder_tags() -> dict[str, str]:
    process = psutil.Process()
    return {
        "holder": user_and_host(),
        "pid": str(process.pid),
        "machine": _machine(),
        "process": process_key(process),
    }


def _machine() -> str:
    """Name what process numbers belong to: containers may share a host's name."""
    namespace = ""
    with suppress(OSError):
        namespace = Path("/proc/self/ns/pid").readlink().name
    return f"{platform.node()} {namespace}".strip()


def _reason_of_death(ticket: Any) -> str | None:
    seconds = (now_ms() - int(ticket.creation_timestamp)) / 1000
    if seconds > STALE_SECONDS:
        return f"held for {seconds:.0f} s"
    if ticket.tags.get("machine") == _machine() and not _is_alive(ticket.tags):
        return "its process has ended"
    return None


def _is_alive(tags: dict[str, str]) -> bool:
    try:
        process = psutil.Process(int(tags["pid"]))
        return is_running(process) and process_key(process) == tags["process"]
    except (psutil.Error, KeyError, ValueError):
        return False


def _busy(prefix: str, other: Any) -> str:
    name = prefix.removesuffix(".lock.")
    return f"{name}: must not be in use by another promotion or rollback (got {_shown(other)})"


def _shown(ticket: Any) -> str:
    return f"{ticket.tags.get('holder', 'somebody')}, process {ticket.tags.get('pid', '?')}"


def _check(client: Any, ticket: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(ticket)
    except MlflowException as error:
        if not is_missing(error):
            raise
        raise LockError(
            f"{ticket.partition('.lock.')[0]}: must stay locked until the end "
            f"(got taken over after {STALE_SECONDS:.0f} s)"
        ) from None


def _delete(client: Any, ticket: str) -> None:
    """Delete a ticket if it is there and the store answers; one that stays becomes stale."""
    from mlflow.exceptions import MlflowException

    with suppress(MlflowException):
        client.delete_registered_model(ticket)
