"""The table of promises: every one of them is tried by a test, and what was not, it says."""

import ast
import json
from pathlib import Path

import pytest

from tests.faults.promises import PROMISES
from tests.faults.reliability import (
    BEGIN,
    END,
    Outcome,
    Promise,
    fill,
    table,
    updated,
    write_outcomes,
)
from tests.stages.conftest import ROOT

FOLDER = Path(__file__).parent
ROWS = [promise.row for promise in PROMISES]
PROMISE = Promise("R99", "a fault", "a promise", 20, "nothing")


def rows_told() -> set[str]:
    """The rows that tests tell outcomes of: the first argument of `promise(...)`."""
    calls = [
        node
        for path in FOLDER.glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args
    ]
    told = [call.args[0] for call in calls if ast.unparse(call.func) == "promise"]
    return {str(row.value) for row in told if isinstance(row, ast.Constant)}


def test_every_promise_has_a_test_and_every_outcome_a_promise():
    assert rows_told() == set(ROWS)
    assert len(ROWS) == len(set(ROWS))


def row_of(*outcomes: Outcome) -> str:
    *_, cell = table([PROMISE], outcomes).splitlines()[-1].strip("| ").split(" | ")
    return cell


@pytest.mark.parametrize(
    ("outcomes", "cell"),
    [
        ((), "**not measured**"),
        ((Outcome("R99", "", 20, 20, "within 2 s"),), "20 of 20 within 2 s"),
        (
            (Outcome("R99", "one", 10, 10), Outcome("R99", "two", 10, 10)),
            "one: 10 of 10<br>two: 10 of 10",
        ),
        ((Outcome("R99", "one", 10, 10),), "one: 10 of 10<br>**below the target**"),
        ((Outcome("R99", "one", 20, 19),), "one: 19 of 20<br>**below the target**"),
        (
            (Outcome("R99", "one", 20, 20), Outcome("R99", "two", 0, 0, "not tried: no disk")),
            "one: 20 of 20<br>two: not tried: no disk",
        ),
        ((Outcome("B1", "", 20, 20),), "**not measured**"),
    ],
)
def test_a_row_shows_what_was_tried_and_what_is_missing(outcomes, cell):
    assert row_of(*outcomes) == cell


def test_the_table_is_a_function_of_the_file_and_changes_nothing_around_it(tmp_path):
    outcomes = [Outcome("R2", "b", 1, 1), Outcome("R1", "", 2, 2, "", 3, 1)]
    written = [tmp_path / "one.json", tmp_path / "two.json"]
    write_outcomes(written[0], "full", "a machine", outcomes)
    write_outcomes(written[1], "full", "a machine", reversed(outcomes))
    assert written[0].read_bytes() == written[1].read_bytes()
    assert json.loads(written[0].read_text())["outcomes"][0]["row"] == "R1"
    document = tmp_path / "page.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    fill(document, table([PROMISE], outcomes))
    before, _, rest = document.read_text().partition(BEGIN)
    assert (before, rest.partition(END)[2]) == ("before\n", "\nafter\n")
    assert "old" not in rest


def test_some_rows_tried_again_replace_those_and_keep_the_others(tmp_path):
    path = tmp_path / "outcomes.json"
    again = [Outcome("R1", "a", 3, 3)]
    assert updated(path, "full", "here", again) == again
    write_outcomes(path, "full", "here", [Outcome("R1", "a", 2, 1), Outcome("R1", "b", 2, 2)])
    assert updated(path, "full", "here", again) == [Outcome("R1", "b", 2, 2), *again]
    assert updated(path, "full", "elsewhere", again) == again
    assert updated(path, "soak", "here", again) == again


def test_the_page_has_a_place_for_the_table():
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert 0 < text.find(BEGIN) < text.find(END)
