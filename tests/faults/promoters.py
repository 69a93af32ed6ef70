"""Promotions and rollbacks as processes that are killed: forks of one that has imported mlflow."""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.tracking.promotions import DyingClient, Project, act

ACTIONS = ("plain", "better", "worse", "rollback")
NUM_AT_ONCE = 8
MAX_WRITES = 8  # as many as an action mostly makes
NOTICES_FILE = "notices"


@dataclass(frozen=True, slots=True)
class Operation:
    """An action of a process of its own, and when it is killed, unless it has ended before.

    Attributes:
        action: An execution's name, to be promoted, or `rollback`.
        num_writes: It kills itself instead of the next write; None: it does not.
        seconds: It is killed so long after its start; None: it is not.
    """

    action: str
    num_writes: int | None = None
    seconds: float | None = None

    @property
    def is_doomed(self) -> bool:
        return self.num_writes is not None or self.seconds is not None


def draw(source: random.Random, max_seconds: float) -> list[Operation]:
    """Return eight operations, every second one to be killed; the others meet at the lock."""
    operations = []
    for _ in range(NUM_AT_ONCE // 2):
        undisturbed, doomed = source.choices(ACTIONS, k=2)
        operations.append(Operation(undisturbed))
        if source.random() < 0.6:
            operations.append(Operation(doomed, num_writes=source.randrange(MAX_WRITES)))
        else:
            operations.append(Operation(doomed, seconds=source.uniform(0, max_seconds)))
    return operations


def carry_out(project: Project, operation: Operation) -> None:
    """Be the process of an operation."""
    client = project.client
    if operation.num_writes is not None:
        die = partial(os.kill, os.getpid(), signal.SIGKILL)
        client = DyingClient(client, operation.num_writes, die)
    act(project.registrar(client, notice=partial(note, project)), project, operation.action)


def note(project: Project, line: str) -> None:
    """Keep a notice, whichever process it is of."""
    with Path(project.root, NOTICES_FILE).open("a") as notices:
        notices.write(f"{line}\n")


def carry_out_together(project: Project, operations: Sequence[Operation]) -> list[int | None]:
    """Fork a process per operation and return their exit codes; None of one that hangs."""
    import mlflow.store.model_registry.sqlalchemy_store
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  # no child has to

    context = multiprocessing.get_context("fork")
    children = [context.Process(target=carry_out, args=(project, one)) for one in operations]
    started = time.monotonic()
    for child in children:
        child.start()
    pairs = zip(operations, children, strict=True)
    doomed = [(one.seconds, child) for one, child in pairs if one.seconds is not None]
    for seconds, child in sorted(doomed, key=lambda pair: pair[0]):
        child.join(max(0.0, started + seconds - time.monotonic()))
        child.kill()
    for child in children:
        child.join(max(0.0, started + 120 - time.monotonic()))
    codes = [child.exitcode for child in children]
    for child in children:
        child.kill()
    return codes
