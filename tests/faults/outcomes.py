"""What the tests of this process have measured, or could not."""

from typing import NoReturn

import pytest

from tests.faults.reliability import Outcome

OUTCOMES: list[Outcome] = []
"""In the order in which they came."""


def not_tried(row: str, what: str, reason: str) -> NoReturn:
    """Skip a test, and have the table say so.

    Args:
        row: The promise's.
        what: What would have been tried.
        reason: Why it cannot be, here.
    """
    OUTCOMES.append(Outcome(row, what, 0, 0, f"not tried: {reason}"))
    pytest.skip(reason)
