"""Entries of the log: small, exact, and enough to know who was champion."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diptych.tracking.audit import (
    MAX_TEXT,
    Action,
    AuditEntry,
    AuditError,
    Standing,
    as_json,
    champions,
    cut_reasons,
    entry_text,
    read_entry,
    standing_of,
)

ENTRY = AuditEntry(
    number=3,
    state="done",
    action="promoted",
    version=2,
    before=Standing(1, None),
    after=Standing(2, 1),
    who="ann@host",
    when="2026-01-31T23:59:59Z",
    run_id="0" * 32,
    why=("accuracy: >= 0.98 (got 0.99)",),
    figures={"cnn.accuracy": 0.9953, "cnn.ece": "inf"},
)


def test_an_entry_is_read_as_it_was_written() -> None:
    assert read_entry(3, entry_text(ENTRY)) == ENTRY


@given(
    why=st.lists(st.text(max_size=2000), max_size=30),
    figures=st.dictionaries(
        st.from_regex(r"[a-z_]{1,20}(\.[a-z_]{1,20}){0,2}", fullmatch=True),
        st.floats(),
        max_size=60,
    ),
)
def test_every_entry_fits_into_a_tag(why: list[str], figures: dict[str, float]) -> None:
    entry = replace(ENTRY, why=cut_reasons(why), figures=figures)
    text = entry_text(entry)
    assert len(text) <= MAX_TEXT
    read = read_entry(3, text)
    assert (read.after, read.why) == (entry.after, entry.why)


@pytest.mark.parametrize("num", [0, 10, 11, 17])
def test_reasons_that_do_not_fit_are_counted(num: int) -> None:
    reasons = [str(number) for number in range(num)]
    more = [f"and {num - 10} more"] if num > 10 else []
    assert cut_reasons(reasons) == (*reasons[:10], *more)


def test_what_is_not_finite_is_text() -> None:
    figures = as_json(replace(ENTRY, figures={"a": math.nan, "b": -math.inf, "c": 1.0}))["figures"]
    assert figures == {"a": "nan", "b": "-inf", "c": 1}


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"why": 1}', "not JSON"])
def test_what_is_no_entry_is_one_line(text: str) -> None:
    with pytest.raises(AuditError, match="audit entry 7: must be JSON") as caught:
        read_entry(7, text)
    assert "\n" not in str(caught.value)


def log_of(*actions: tuple[Action, int], champion: int | None = None) -> list[AuditEntry]:
    """A log of actions and the versions that they are about.

    Args:
        actions: Oldest first.
        champion: Before the first of them.
    """
    log: list[AuditEntry] = []
    for action, version in actions:
        after = champion if action == "refused" else version
        entry = replace(ENTRY, number=len(log) + 1, action=action, version=version)
        log.append(replace(entry, before=Standing(champion, None), after=Standing(after, None)))
        champion = after
    return log


def test_rollbacks_take_champions_away_and_refusals_change_nothing() -> None:
    log = log_of(("promoted", 1), ("refused", 2), ("promoted", 3), ("promoted", 4))
    assert champions(log) == [1, 3, 4]
    log += log_of(("rolled back", 3), champion=4)
    assert champions(log) == [1, 3]
    assert standing_of(log) == Standing(3, None)
    log += log_of(("promoted", 4), ("rolled back", 3), ("rolled back", 1), champion=3)
    assert champions(log) == [1]


def test_a_champion_again_is_there_twice_until_it_is_left() -> None:
    log = log_of(("promoted", 1), ("promoted", 2), ("promoted", 1))
    assert champions(log) == [1, 2, 1]
    assert champions([*log, *log_of(("rolled back", 2), champion=1)]) == [1, 2]


def test_what_is_moved_by_hand_is_followed() -> None:
    log = log_of(("promoted", 1), ("promoted", 2), ("promoted", 3))
    for present, expected in ((3, [1, 2, 3]), (2, [1, 2]), (7, [1, 2, 3, 7]), (None, [1, 2, 3])):
        assert champions(log, present) == expected
        assert champions([*log, *log_of(("promoted", 8), champion=present)]) == [*expected, 8]
    # Gone back to by hand's alias, of whose past the log knows nothing.
    assert champions([*log, *log_of(("rolled back", 9), champion=3)]) == [9]


def test_what_is_not_done_does_not_count() -> None:
    (entry,) = log_of(("promoted", 1))
    for state in ("intended", "undone"):
        log = [replace(entry, state=state)]
        assert champions(log) == []
        assert standing_of(log) == Standing(None, None)
