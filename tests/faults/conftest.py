"""Fault tests tell what they have measured; a full run writes it down."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from diptych.machine import describe_machine
from tests.faults.outcomes import OUTCOMES
from tests.faults.reliability import Outcome, updated, write_outcomes
from tests.faults.tiers import chosen_tier

OUTCOMES_VARIABLE = "DIPTYCH_RELIABILITY"
"""Names the file that outcomes are written to; the tests then run in one process."""
UPDATE_VARIABLE = "DIPTYCH_RELIABILITY_UPDATE"
"""Is there when only some of the tests run: the file keeps what the others have measured."""


@pytest.fixture
def promise(capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Tell what was measured for a promise, and fail unless it held in every trial.

    Arguments are those of `Outcome`.
    """

    def tell(row: str, what: str, tried: int, survived: int, **more: object) -> None:
        outcome = Outcome(row, what, tried, survived, **more)  # type: ignore[arg-type]
        OUTCOMES.append(outcome)
        with capsys.disabled():
            print(f"\n{row} {what}: tried {tried}, survived {survived} {outcome.detail}".rstrip())
        assert survived == tried > 0, outcome

    return tell


@pytest.fixture(scope="session", autouse=True)
def _written_down() -> Iterator[None]:
    yield
    if name := os.environ.get(OUTCOMES_VARIABLE):
        path, tier, machine = Path(name), chosen_tier(), describe_machine()
        is_part = UPDATE_VARIABLE in os.environ
        outcomes = updated(path, tier, machine, OUTCOMES) if is_part else OUTCOMES
        write_outcomes(path, tier, machine, outcomes)
