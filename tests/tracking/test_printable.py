"""What a terminal is sent, and what it is not."""

import json
import sys

import pytest

from diptych.tracking.printable import printable, printable_json

ALL = "".join(map(chr, range(sys.maxunicode + 1)))


def test_text_is_one_line_without_anything_that_a_terminal_obeys() -> None:
    assert printable(ALL).isprintable()
    assert printable("a\n\x1b[2J\x9b\u202e\ud800") == r"a\n\x1b[2J\x9b\u202e\ud800"


@pytest.mark.parametrize("text", ["", "two  words", "Zürich – ‘5 σ’ 🙂", r"C:\new"])
def test_what_can_be_printed_stays_as_it_is(text: str) -> None:
    assert printable(text) == text
    assert text in json.loads(printable_json([text]))
    assert "\\u" not in printable_json([text])


def test_json_stays_the_same_value_in_lines_that_can_be_printed() -> None:
    backwards = ALL[::-1]  # the two halves of a pair, one after the other, would be one character
    value = {backwards: [backwards, 1.5, None, {"key": []}]}
    shown = printable_json(value)
    assert all(line.isprintable() for line in shown.split("\n"))
    assert json.loads(shown) == value


def test_a_number_that_json_lacks_is_an_error_of_ours() -> None:
    with pytest.raises(ValueError, match="JSON"):
        printable_json({"loss": float("nan")})
