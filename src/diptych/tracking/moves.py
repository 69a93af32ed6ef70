"""An entry of the log carried out: written as intended, done, and written as done.

Whoever has the lock next completes what somebody was killed in.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from diptych.tracking.audit import AuditEntry, Standing, champions
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
        completed = _complete(registry, _led_past_deleted(registry, state, entry), raise_if_lost)
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
    """Tell whether the version is there, and nobody has moved the champion by hand since."""
    if entry.action == "refused":  # which moves no alias
        return registry.has(entry.version)
    before = entry.before.champion
    is_unmoved = found.champion in (before, entry.after.champion)
    # The one that is left may be deleted: its alias is gone with it.
    is_left_deleted = found.champion is None and before is not None and not registry.has(before)
    return registry.has(entry.version) and (is_unmoved or is_left_deleted)


def _led_past_deleted(registry: Registry, state: RegistryState, entry: AuditEntry) -> AuditEntry:
    """Return an entry whose `previous` is there: a version that was deleted is passed over."""
    champion, previous = entry.after.champion, entry.after.previous
    if entry.action == "refused" or previous is None or registry.has(previous):
        return entry
    earlier = champions(state.log, previous)[:-1]
    after = Standing(champion, registry.newest_existing(earlier, but=champion))
    return replace(entry, after=after)


def _complete(registry: Registry, entry: AuditEntry, raise_if_lost: RaiseIfLost) -> AuditEntry:
    """Bring about what an entry says, from wherever it was interrupted."""
    if entry.action != "rolled back":  # first: a champion has passed the gate
        raise_if_lost()
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
    """Write that an entry is not done, after putting verdict and alias back where permitted."""
    raise_if_lost()
    state = registry.read()
    with suppress(DeniedError):
        if entry.action == "promoted" and not _was_champion(state, entry.version):
            registry.take_verdict_back(entry.version)
        if _is_half_moved(registry, state.standing, entry):
            raise_if_lost()
            registry.set_alias(PREVIOUS, entry.before.previous)
    raise_if_lost()
    registry.write(replace(entry, state="undone"))


def _is_half_moved(registry: Registry, found: Standing, entry: AuditEntry) -> bool:
    """Tell whether `previous` alone was moved, and can be put back."""
    before, after = entry.before, entry.after
    return (
        found.champion not in (None, after.champion)
        and found.previous == after.previous != before.previous
        and (before.previous is None or registry.has(before.previous))
    )


def _was_champion(state: RegistryState, version: int) -> bool:
    return any(
        entry.version == version and entry.action == "promoted" and entry.state == "done"
        for entry in state.log
    )
