"""What is promised under faults, what was measured, and the table of both.

`make test-faults` has every promise's figures written into docs/reliability.json, and from that
file alone the table in docs/reliability.md.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

BEGIN, END = "<!-- reliability:begin -->", "<!-- reliability:end -->"


@dataclass(frozen=True, slots=True)
class Promise:
    """One row of the table.

    Attributes:
        row: Its short name, as R1.
        fault: What happens.
        promise: What users get all the same.
        target: Survived trials of as many, in the full tier.
        stock: What the tools do without this project; empty if nobody measured it.
    """

    row: str
    fault: str
    promise: str
    target: int
    stock: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a test measured for a promise.

    Attributes:
        row: The promise's.
        what: What was tried, if a promise has several parts.
        tried: Number of trials; 0 if this machine permits none, and the detail says why.
        survived: In how many of them the promise held.
        detail: A measured figure with its unit, if the promise has one.
        stock_tried: Trials of the same fault without this project; 0 if it was not measured.
        stock_survived: In how many of them nothing was lost.
    """

    row: str
    what: str
    tried: int
    survived: int
    detail: str = ""
    stock_tried: int = 0
    stock_survived: int = 0


def write_outcomes(path: Path, tier: str, machine: str, outcomes: Iterable[Outcome]) -> None:
    """Write what a run of the tests has measured, sorted, for equal bytes."""
    rows = sorted(
        (asdict(outcome) for outcome in outcomes), key=lambda row: (row["row"], row["what"])
    )
    content = {"tier": tier, "machine": machine, "outcomes": rows}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def updated(path: Path, tier: str, machine: str, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return outcomes beside those of a file that they do not replace.

    Args:
        path: Written by an earlier run, or not there.
        tier: Of these outcomes; those of another one are not kept.
        machine: Likewise.
        outcomes: Of some of the tests.
    """
    if not path.is_file():
        return list(outcomes)
    *where, known = read_outcomes(path)
    new = {(outcome.row, outcome.what) for outcome in outcomes}
    kept = [one for one in known if (one.row, one.what) not in new]
    return [*(kept if where == [tier, machine] else []), *outcomes]


def read_outcomes(path: Path) -> tuple[str, str, list[Outcome]]:
    """Return the tier, the machine and the outcomes of a file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return content["tier"], content["machine"], [Outcome(**row) for row in content["outcomes"]]


def table(promises: Iterable[Promise], outcomes: Iterable[Outcome]) -> str:
    """Return the table of promises in Markdown; what was not tried says so."""
    by_row: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_row.setdefault(outcome.row, []).append(outcome)
    lines = ["| | fault | without | promise | target | measured |", "|---|---|---|---|---|---|"]
    for promise in promises:
        measured = by_row.get(promise.row, [])
        cells = [
            promise.row,
            promise.fault,
            _stock(promise, measured),
            promise.promise,
            f"{promise.target:,} of {promise.target:,}",
            "<br>".join([*map(_measured, measured), *_below_target(promise, measured)]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def fill(document: Path, text: str) -> None:
    """Put a text between a document's two marks."""
    content = document.read_text(encoding="utf-8")
    before, begin, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document}: must hold the marks {BEGIN} and {END}")
    document.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def _below_target(promise: Promise, outcomes: Sequence[Outcome]) -> list[str]:
    """Say so if a promise was tried less often, in all its parts together, than it should be."""
    if not outcomes:
        return ["**not measured**"]
    survived = sum(outcome.survived for outcome in outcomes)
    return ["**below the target**"] if survived < promise.target else []


def _measured(outcome: Outcome) -> str:
    text = f"{outcome.survived:,} of {outcome.tried:,}" if outcome.tried else ""
    return " ".join(filter(None, [outcome.what and f"{outcome.what}:", text, outcome.detail]))


def _stock(promise: Promise, outcomes: Iterable[Outcome]) -> str:
    tried = [outcome for outcome in outcomes if outcome.stock_tried]
    measured = [f"{one.stock_survived:,} of {one.stock_tried:,} survive" for one in tried]
    return "<br>".join(filter(None, [promise.stock, *measured]))


def main(outcomes: Path, document: Path) -> None:
    """Write the table of a file of outcomes into a document."""
    from tests.faults.promises import PROMISES

    tier, machine, measured = read_outcomes(outcomes)
    note = f"Measured by `make test-faults` (tier {tier}) on: {machine}."
    fill(document, f"{table(PROMISES, measured)}\n\n{note}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
