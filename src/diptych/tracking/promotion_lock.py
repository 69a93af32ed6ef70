"""One promotion or rollback of a model at a time, over processes and machines.

MLflow has no lock and no compare-and-set, but a registered model's name is unique and a listing
sees every one that was created before. Who wants the lock creates a model with a name of its own,
a ticket, and holds the lock if a listing made afterwards shows no other ticket. Of two that see
each other one steps back, so that two never hold it. A ticket's name is never used again: deleting
a dead holder's cannot hit anybody else's.
"""

import configparser
import os
import platform
import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from diptych.errors import UserError
from diptych.execution import is_running
from diptych.machine import user_name
from diptych.tracking.client import is_missing
from diptych.tracking.liveness import process_tag
from diptych.tracking.store import find_store
from diptych.tracking.tracker import now_ms

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

STALE_SECONDS = 600.0
"""No holder takes so long: it is minutes of computing that happen outside of the lock."""

PATIENCE_SECONDS = 60.0

# Clocks differ and a request takes its time: a holder stops before others go on without it.
_MAX_HOLDING_SECONDS = STALE_SECONDS - 60
_POLLING_SECONDS = (0.02, 0.1)


class LockError(UserError):
    """The lock could not be had, or was lost."""


def acting_user() -> str:
    """Return who acts here: user and host, after the login with MLflow's server if there is one."""
    local = f"{user_name()}@{platform.node()}"
    login = _login()
    return f"{login} ({local})" if login else local


@contextmanager
def promotion_lock(
    client: "MlflowClient",
    name: str,
    notice: Callable[[str], None],
    patience_seconds: float = PATIENCE_SECONDS,
) -> Iterator[Callable[[], None]]:
    """Hold a registered model's lock while the block runs.

    Args:
        client: Of the store.
        name: The registered model's, which need not exist.
        notice: Told in one line of a dead holder whose lock is taken over.
        patience_seconds: The longest wait.

    Yields:
        What raises LockError if the lock was lost: somebody has taken it over, or now may.

    Raises:
        LockError: when somebody else holds it all the time.
    """
    prefix = f"{name}.lock."
    ticket = f"{prefix}{now_ms():013d}-{secrets.token_hex(8)}"
    try:
        _wait(client, prefix, ticket, notice, time.monotonic() + patience_seconds)
        yield lambda: _raise_if_lost(client, ticket)
    finally:
        _delete(client, ticket)


def _login() -> str | None:
    """Return whom MLflow logs in as, by its variables or its file; None where it does not."""
    if not find_store(Path(), os.environ).uri.startswith(("http://", "https://")):
        return None
    from mlflow.utils.credentials import read_mlflow_creds

    try:
        found = read_mlflow_creds()
    except (configparser.Error, OSError, UnicodeError):  # then no request is answered either
        return None
    return found.username if found.password else None  # MLflow sends both or neither


def _wait(
    client: "MlflowClient",
    prefix: str,
    ticket: str,
    notice: Callable[[str], None],
    deadline: float,
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


def _other_tickets(
    client: "MlflowClient", prefix: str, own: str, notice: Callable[[str], None]
) -> "list[RegisteredModel]":
    """Return the tickets of living holders, oldest first; those of dead ones are deleted.

    A server may keep somebody from deleting another's ticket, which then stays and counts no more.
    """
    # In LIKE an underscore stands for any character: the names are compared again.
    found = client.search_registered_models(f"name LIKE '{prefix}%'", max_results=1000)
    others = [one for one in found if one.name.startswith(prefix) and one.name != own]
    living = []
    for other in sorted(others, key=lambda one: str(one.name)):
        reason = _reason_of_death(other)
        if reason is None:
            living.append(other)
        elif _delete(client, other.name):
            name = prefix.removesuffix(".lock.")
            notice(f"{name}: took over the lock of {_shown(other)}: {reason}")
    return living


def _holder_tags() -> dict[str, str]:
    process = psutil.Process()
    return {
        "holder": acting_user(),
        "pid": str(process.pid),
        "process": process_tag(process),
    }


def _reason_of_death(ticket: "RegisteredModel") -> str | None:
    seconds = _age_seconds(ticket)
    if seconds > STALE_SECONDS:
        return f"held for {seconds:.0f} s"
    if _has_ended(ticket.tags):
        return "its process has ended"
    return None


def _age_seconds(ticket: "RegisteredModel") -> float:
    return (now_ms() - int(ticket.creation_timestamp)) / 1000


def _has_ended(tags: Mapping[str, str]) -> bool:
    """Tell whether a holder's process has ended; False when it could not be seen from here."""
    view, _, _ = tags.get("process", "").rpartition("/")
    # Machine, boot, container and user: a copied machine may have its original's name and id.
    if view != process_tag(psutil.Process()).rpartition("/")[0]:
        return False
    try:
        process = psutil.Process(int(tags["pid"]))
        return not is_running(process) or process_tag(process) != tags["process"]
    except (psutil.Error, KeyError, ValueError):
        return True


def _busy(prefix: str, other: "RegisteredModel") -> str:
    name = prefix.removesuffix(".lock.")
    return f"{name}: must not be in use by another promotion or rollback (got {_shown(other)})"


def _shown(ticket: "RegisteredModel") -> str:
    return f"{ticket.tags.get('holder', 'somebody')}, process {ticket.tags.get('pid', '?')}"


def _raise_if_lost(client: "MlflowClient", ticket: str) -> None:
    from mlflow.exceptions import MlflowException

    found = None
    try:
        seconds = _age_seconds(client.get_registered_model(ticket))
        if seconds > _MAX_HOLDING_SECONDS:
            found = f"held for {seconds:.0f} s; others go on after {STALE_SECONDS:.0f} s"
    except MlflowException as error:
        if not is_missing(error):
            raise
        found = "taken over by somebody else"
    if found is not None:
        name = ticket.partition(".lock.")[0]
        raise LockError(f"{name}: must stay locked until the end (got {found})")


def _delete(client: "MlflowClient", ticket: str) -> bool:
    """Delete a ticket and tell whether that was done; one that stays becomes stale."""
    from mlflow.exceptions import MlflowException

    try:
        client.delete_registered_model(ticket)
    except MlflowException:
        return False
    return True
