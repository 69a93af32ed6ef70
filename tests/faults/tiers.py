"""How often each promise is tried: the tiers, chosen by DIPTYCH_FAULTS."""

import os
from typing import Literal, get_args

Tier = Literal["quick", "full", "soak"]

VARIABLE = "DIPTYCH_FAULTS"


def chosen_tier() -> Tier:
    """Return the tier that the environment asks for; `quick` is part of `make test`."""
    chosen = os.environ.get(VARIABLE, "quick")
    for tier in get_args(Tier):
        if tier == chosen:
            return tier
    raise ValueError(f"{VARIABLE}: must be quick, full or soak (got {chosen!r})")


def trials(quick: int, full: int, soak: int | None = None) -> int:
    """Return how often to try in the chosen tier; a soak does so ten times as often.

    What is no number of rounds, such as how many run at once, must say what it is in a soak.
    """
    return {"quick": quick, "full": full, "soak": 10 * full if soak is None else soak}[
        chosen_tier()
    ]


PATIENCE_SECONDS = 20.0 if chosen_tier() == "quick" else 5.0
"""In which a signal ends what it is sent to; in the quick tier many tests share the processor."""
