"""Fault tests tell what they have measured; a full run writes it down."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from diptych.machine import describe_machine
from tests.faults.outcomes import OUTCOMES
from tests.faults.reliability import Outcome, write_outcomes
from tests.faults.tiers import chosen_tier

OUTCOMES_VARIABLE = "DIPTYCH_RELIABILITY"
"""Names the file that outcomes are written to; the tests then run in one process."""


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
    if path := os.environ.get(OUTCOMES_VARIABLE):
        write_outcomes(Path(path), chosen_tier(), describe_machine(), OUTCOMES)
