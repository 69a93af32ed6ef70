"""A verdict with its reasons, and how it is shown."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["passed", "failed", "not applicable"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that the gate has looked at.

    Attributes:
        name: What was looked at, in a few words.
        expected: What the policy asks for.
        found: What the model has.
        status: `not applicable` when there is nothing to compare with, or nothing to ask.
    """

    name: str
    expected: str
    found: str
    status: Status


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict: promoted when no check has failed.

    Attributes:
        checks: All of them, also those after a failed one.
    """

    checks: tuple[Check, ...]

    @property
    def is_promoted(self) -> bool:
        """Whether the candidate may be the champion."""
        return bool(self.checks) and not self.refusals

    @property
    def refusals(self) -> tuple[Check, ...]:
        """The checks that have failed: the reasons of a refusal."""
        return tuple(check for check in self.checks if check.status == "failed")


def check(name: str, expected: str, found: str, is_passed: bool) -> Check:
    """Return a check with its outcome."""
    return Check(name, expected, found, "passed" if is_passed else "failed")


def decision_rows(decision: Decision) -> list[tuple[str, str, str, str]]:
    """Return check, expected, found and status of each check, for a table."""
    return [(check.name, check.expected, check.found, check.status) for check in decision.checks]


def as_json(decision: Decision) -> dict[str, Any]:
    """Return a decision in the types that JSON has: `is_promoted` and the list `checks`."""
    return {
        "is_promoted": decision.is_promoted,
        "checks": [asdict(check) for check in decision.checks],
    }
