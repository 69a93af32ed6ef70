"""An entry of the log carried out: written as intended, done, and written as done.

Whoever has the lock next completes what somebody was killed in.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from diptych.tracking.audit import AuditEntry, Standing
from diptych.tracking.registry import (
    CHAMPION,
    PREVIOUS,
    DeniedError,
    Registry,
    RegistryError,
    RegistryState,
)

RaiseIfLost = Callable[[], None]
"""Raises if the lock was lost."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A registered model in which nothing is interrupted.

    Attributes:
        state: Its.
        completed: What was interrupted and has been completed here; None for nothing.
    """

    state: RegistryState
    completed: AuditEntry | None = None


def carry_out(registry: Registry, entry: AuditEntry, raise_if_lost: RaiseIfLost) -> AuditEntry:
    """Write an entry and do what it says; return it as done.

    Args:
        registry: Where; its lock is held.
        entry: What is intended.
        raise_if_lost: Raises if the lock was lost.

    Raises:
        DeniedError: when the server does not let it be done; it is given up then.
        RegistryError: when somebody else has moved the aliases meanwhile, by hand.
    """
    raise_if_lost()
    registry.write(entry)
    try:
        return _complete(registry, entry, raise_if_lost)
    except DeniedError:
        # Left as intended, the next command of somebody who may would carry it out.
        _give_up(registry, entry, raise_if_lost)
        raise


def settle(
    registry: Registry, raise_if_lost: RaiseIfLost, notice: Callable[[str], None]
) -> Settled:
    """Complete what was interrupted, or give it up.

    Args:
        registry: Where; its lock is held.
        raise_if_lost: Raises if the lock was lost.
        notice: Told in one line of what was interrupted.

    Raises:
        DeniedError: when the server does not let it be completed; it is left for somebody else.
    """
    state = registry.read()
    entry = state.interrupted
    if entry is None:
        return Settled(state)
    where = f"{registry.name}: audit entry {entry.number}, interrupted:"
    if not _can_complete(registry, state.standing, entry):
        _give_up(registry, entry, raise_if_lost)
        notice(f"{where} given up, a version or alias was changed by hand")
        return Settled(registry.read())
    try:
        completed = _complete(registry, entry, raise_if_lost)
    except DeniedError as error:
        raise DeniedError(f"{where} to be completed first: {error}") from None
    notice(f"{where} completed ({entry.action}: version {entry.version})")
    return Settled(registry.read(), completed)


def shown(standing: Standing) -> str:
    """Return aliases as text."""
    champion, previous = (version_text(one) for one in (standing.champion, standing.previous))
    return f"{CHAMPION} {champion}, {PREVIOUS} {previous}"


def version_text(number: int | None) -> str:
    """Return a version's number as text."""
    return "none" if number is None else f"version {number}"


def _can_complete(registry: Registry, found: Standing, entry: AuditEntry) -> bool:
    """Tell whether all is there that an entry is about, and nobody has moved the champion since."""
    if entry.action == "refused":  # which moves no alias
        return registry.has(entry.version)
    named = (entry.version, entry.after.previous)
    are_there = all(registry.has(one) for one in named if one is not None)
    before = entry.before.champion
    # The one that is left may be deleted: its alias is gone with it.
    champions = [before, entry.after.champion]
    champions += [None] if before is not None and not registry.has(before) else []
    return are_there and found.champion in champions


def _complete(registry: Registry, entry: AuditEntry, raise_if_lost: RaiseIfLost) -> AuditEntry:
    """Bring about what an entry says, from wherever it was interrupted."""
    if entry.action != "rolled back":  # first: a champion has passed the gate
        registry.tag_verdict(entry.version, entry.action, "\n".join(entry.why))
    if entry.action != "refused":
        raise_if_lost()
        registry.set_alias(PREVIOUS, entry.after.previous)
        raise_if_lost()
        registry.set_alias(CHAMPION, entry.after.champion)
    found = registry.read().standing
    if entry.action != "refused" and found != entry.after:
        raise RegistryError(
            f"{registry.name}: aliases must be {shown(entry.after)} (got {shown(found)}, "
            "moved by somebody else)"
        )
    done = replace(entry, state="done")
    raise_if_lost()
    registry.write(done)
    return done


def _give_up(registry: Registry, entry: AuditEntry, raise_if_lost: RaiseIfLost) -> None:
    """Write that an entry is not done, after taking back what was, as far as that is permitted."""
    raise_if_lost()
    state = registry.read()
    before, found = entry.before, state.standing
    with suppress(DeniedError):
        if entry.action == "promoted" and not _was_champion(state, entry.version):
            registry.take_verdict_back(entry.version)
        is_left = before.previous is None or registry.has(before.previous)
        is_half_moved = found.champion == before.champion and found.previous != before.previous
        if entry.action != "refused" and is_half_moved and is_left:
            registry.set_alias(PREVIOUS, before.previous)
    registry.write(replace(entry, state="undone"))


def _was_champion(state: RegistryState, version: int) -> bool:
    return any(
        entry.version == version and entry.action == "promoted" and entry.state == "done"
        for entry in state.log
    )
