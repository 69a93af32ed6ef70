import contextlib
import math
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from diptych.params import Params, ParamsError, load_params, read_yaml


class Nested(Params):
    depth: int


class Example(Params):
    """One parameter of every kind."""

    rate: Annotated[float, Field(gt=0)]
    share: Annotated[float, Field(ge=0, lt=1)]
    count: Annotated[int, Field(ge=1, le=9)]
    name: Literal["adam", "muon"]
    flag: bool
    title: str
    nested: Nested


GOOD = {
    "rate": "0.5",
    "share": "0",
    "count": "3",
    "name": "adam",
    "flag": "true",
    "title": "a title",
    "nested": "{depth: 2}",
}


@pytest.fixture(autouse=True)
def _working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(text: str) -> Path:
    path = Path("params.yaml")
    path.write_text(text, encoding="utf-8")
    return path


def section(**changes: str | None) -> str:
    """The text of section `train`, with keys changed, added, or (None) left out."""
    values = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    return "train:\n" + "".join(f"  {key}: {value}\n" for key, value in values.items())


def message_of(text: str) -> str:
    with pytest.raises(ParamsError) as caught:
        load_params(write(text), "train", Example)
    return str(caught.value)


def test_a_good_section_loads_frozen():
    params = load_params(write(section() + "other: 1\n"), "train", Example)
    assert params.model_dump() == {
        "rate": 0.5,
        "share": 0,
        "count": 3,
        "name": "adam",
        "flag": True,
        "title": "a title",
        "nested": {"depth": 2},
    }
    with pytest.raises(ValidationError, match="frozen"):
        params.rate = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate": None}, "rate: this key is missing"),
        ({"rate": ""}, "rate: must be a number (got None)"),
        ({"rate": "-1"}, "rate: must be > 0 (got -1)"),
        ({"rate": "0"}, "rate: must be > 0 (got 0)"),
        ({"rate": "fast"}, "rate: must be a number (got 'fast')"),
        ({"rate": "'1'"}, "rate: must be a number (got '1')"),
        ({"rate": "true"}, "rate: must be a number (got True)"),
        ({"rate": "[1]"}, "rate: must be a number (got [1])"),
        ({"rate": ".nan"}, "rate: must be a finite number (got nan)"),
        ({"rate": ".inf"}, "rate: must be a finite number (got inf)"),
        ({"share": "-0.1"}, "share: must be >= 0 (got -0.1)"),
        ({"share": "1.0"}, "share: must be < 1 (got 1.0)"),
        ({"count": "0"}, "count: must be >= 1 (got 0)"),
        ({"count": "10"}, "count: must be <= 9 (got 10)"),
        ({"count": "3.0"}, "count: must be a whole number (got 3.0)"),
        ({"count": "1_000"}, "count: must be <= 9 (got 1000)"),
        ({"name": "sgd"}, "name: must be 'adam' or 'muon' (got 'sgd')"),
        ({"name": "1"}, "name: must be 'adam' or 'muon' (got 1)"),
        ({"flag": "yes"}, "flag: must be true or false (got 'yes')"),
        ({"flag": "1"}, "flag: must be true or false (got 1)"),
        ({"title": "7"}, "title: must be text (got 7)"),
        ({"title": "null"}, "title: must be text (got None)"),
        ({"nested": "5"}, "nested: must be a section with keys (got 5)"),
        ({"nested": "{depth: x}"}, "nested.depth: must be a whole number (got 'x')"),
        ({"nested": "{depth: 1, width: 2}"}, "nested.width: unknown key (got 2)"),
        ({"5": "1"}, "5: keys must be text (got 5)"),
        ({"rats": "1"}, "rats: unknown key (got 1)"),
        ({"rate": "-1", "count": "0"}, "rate: must be > 0 (got -1); and 1 more"),
    ],
)
def test_every_kind_of_problem_is_this_one_line(changes, message):
    assert message_of(section(**changes)) == f"params.yaml: train.{message}"


def test_what_is_shown_of_a_value_is_short_and_one_line():
    message = message_of(section(rate='"' + "long\\n" * 100 + '"'))
    assert message.startswith("params.yaml: train.rate: must be a number (got 'long\\nlong")
    assert message.endswith("...)")
    assert len(message) < 140


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("other: {}\n", "train: this section is missing"),
        ("train: 5\n", "train: must be a section with keys (got 5)"),
        ("train:\n", "train: must be a section with keys (got None)"),
        ("train: [1]\n", "train: must be a section with keys (got [1])"),
        ("", "must hold sections (got None)"),
        ("- train\n", "must hold sections (got ['train'])"),
        ("1: {}\n", "must hold sections (got {1: {}})"),
        ("just text\n", "must hold sections (got 'just text')"),
    ],
)
def test_a_file_of_another_form_is_refused(text, message):
    assert message_of(text) == f"params.yaml: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1, 2\n", "line 3: is not valid YAML (expected ',' or ']', but got"),
        ("a: 1\nb: c: d\n", "line 2: is not valid YAML (mapping values are not allowed here)"),
        ("a: 1\n\tb: 2\n", "line 2: is not valid YAML (found character"),
        ("a: 1\nb: 2\na: 3\n", "line 3: is not valid YAML (found duplicate key"),
        ("train: {rate: 1, rate: 2}\n", "line 1: is not valid YAML (found duplicate key"),
        ("a: *nobody\n", "line 1: is not valid YAML (found undefined alias"),
        ("a: !!python/name:os.system\n", "line 1: is not valid YAML (could not determine"),
        ("a: 1\n---\nb: 2\n", "line 2: is not valid YAML (but found another document)"),
        ("a: \x07\n", "is not valid YAML ("),
        ("[" * 500, "is not valid YAML ("),
    ],
)
def test_what_is_not_yaml_is_one_line_that_names_the_place(text, message):
    found = message_of(text)
    assert found.startswith(f"params.yaml: {message}")
    assert len(found.splitlines()) == 1


def test_files_that_cannot_be_read():
    with pytest.raises(ParamsError, match=r"^none.yaml: cannot be read \(No such file or direc"):
        read_yaml(Path("none.yaml"))
    with pytest.raises(ParamsError, match=r"^.: cannot be read \(Is a directory\)$"):
        read_yaml(Path())
    Path("latin.yaml").write_bytes("a: é".encode("latin-1"))
    with pytest.raises(ParamsError, match=r"^latin.yaml: must be UTF-8 text \(.*\)$"):
        read_yaml(Path("latin.yaml"))


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("1E5", 100000.0), ("1.5e+2", 150.0), ("-1e3", -1000.0), ("3", 3)],
)
def test_numbers_are_those_of_yaml_1_2(text, value):
    assert read_yaml(write(f"a: {text}\n")) == {"a": value}


@pytest.mark.parametrize("text", ["no", "off", "yes", "on", "1:30", "mnist"])
def test_words_are_words(text):
    assert read_yaml(write(f"a: {text}\n")) == {"a": text}


@settings(deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40) | st.text(alphabet="{}[]:,-?!&*|>%@'\"#~\n\t a1e.<=", max_size=40))
def test_any_bytes_are_sections_or_one_line(content):
    path = Path("params.yaml")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with contextlib.suppress(ParamsError):
        assert all(isinstance(key, str) for key in read_yaml(path))
        return
    with pytest.raises(ParamsError, match=r"\Aparams.yaml: .*\Z"):  # `.` is no line break
        read_yaml(path)


def test_no_number_is_lost_on_the_way():
    assert read_yaml(write(f"a: {math.pi!r}\n")) == {"a": math.pi}
