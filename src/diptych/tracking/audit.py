"""The log of a registered model: which version became the champion when, by whom and why.

An entry is written twice: as intended before anything is moved, and as done afterwards. One that
stays intended was interrupted, and says itself how to complete it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from diptych.errors import UserError

Action = Literal["promoted", "refused", "rolled back"]
State = Literal["intended", "done", "undone"]

MAX_TEXT = 5000
"""Characters of a registered model's tag, and of a version's description, in an SQL store."""

_MAX_REASONS = 10
_MAX_REASON = 200
_MAX_FIGURES = 40


class AuditError(UserError):
    """An entry of the log cannot be read."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Which versions the aliases name; None for an alias that is not there."""

    champion: int | None
    previous: int | None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One decision.

    Attributes:
        number: Of the entry, from 1.
        state: Undone: the server did not let it be done, or it was interrupted and then overtaken
            by somebody's moving an alias or deleting a version by hand.
        action: What was decided.
        version: The version that it was about.
        before: The aliases when it was decided.
        after: The aliases when it is done; of a refusal those before it.
        who: User and host, and the login if there is one.
        when: UTC, as 2026-01-31T23:59:59Z.
        run_id: The run that made the version's model.
        why: Reasons, one line each, as `cut_reasons` returns them.
        figures: On the test set; text stands for what is not finite.
    """

    number: int
    state: State
    action: Action
    version: int
    before: Standing
    after: Standing
    who: str
    when: str
    run_id: str
    why: tuple[str, ...]
    figures: Mapping[str, float | str]


def entry_text(entry: AuditEntry) -> str:
    """Write an entry as compact JSON of at most MAX_TEXT characters."""
    fields = as_json(entry)
    del fields["number"]  # it is the key
    return json.dumps(fields, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def read_entry(number: int, text: str) -> AuditEntry:
    """Read what `entry_text` wrote.

    Raises:
        AuditError: when it is not that.
    """
    try:
        fields = {"number": number, **json.loads(text)}
        return _ENTRY.validate_python({**fields, "why": tuple(fields["why"])}, strict=False)
    except (ValueError, KeyError, TypeError, ValidationError):
        raise AuditError(
            f"audit entry {number}: must be JSON as this program writes it (got {text:.60})"
        ) from None


def as_json(entry: AuditEntry) -> dict[str, Any]:
    """Return an entry as JSON values."""
    return {
        **asdict(entry),
        "why": list(entry.why),
        "figures": {
            key: _storable(value) for key, value in list(entry.figures.items())[:_MAX_FIGURES]
        },
    }


def cut_reasons(reasons: Sequence[str]) -> tuple[str, ...]:
    """Return reasons that fit into an entry: the first ones, each cut to a line's length.

    Not to be repeated: the line that counts the others would count as a reason.
    """
    kept = [
        one if len(one) <= _MAX_REASON else one[: _MAX_REASON - 1] + "…"
        for one in reasons[:_MAX_REASONS]
    ]
    more = len(reasons) - len(kept)
    return (*kept, f"and {more} more") if more else tuple(kept)


def champions(log: Sequence[AuditEntry], present: int | None = None) -> list[int]:
    """Return the champions that can be gone back to, the present one last.

    A promotion adds one; a rollback takes the last away. Where somebody has moved the alias by
    hand, to an earlier champion or to another version, the list follows.

    Args:
        log: Oldest entry first.
        present: The version that is the champion now; None for the log's.
    """
    stack: list[int] = []
    for entry in log:
        if entry.state != "done" or entry.action == "refused":
            continue
        _follow(stack, entry.before.champion)
        if entry.action == "rolled back":
            del stack[_last_index(stack, entry.version) or 0 :]
        stack.append(entry.version)
    _follow(stack, present)
    return stack


def standing_of(log: Sequence[AuditEntry]) -> Standing:
    """Return what the aliases must be after a log."""
    moved = [entry.after for entry in log if entry.state == "done" and entry.action != "refused"]
    return moved[-1] if moved else Standing(None, None)


def _follow(stack: list[int], champion: int | None) -> None:
    """Let a version be the last of a list of champions; None for one that is no more."""
    if champion is None:
        return
    index = _last_index(stack, champion)
    if index is None:
        stack.append(champion)
    else:
        del stack[index + 1 :]


def _last_index(stack: Sequence[int], version: int) -> int | None:
    return max((index for index, one in enumerate(stack) if one == version), default=None)


def _storable(value: float | str) -> float | str:
    if isinstance(value, str):
        return value
    return float(f"{value:.8g}") if math.isfinite(value) else str(value)


_ENTRY = TypeAdapter(AuditEntry)
