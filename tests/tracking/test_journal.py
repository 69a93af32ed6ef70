"""A journal holds what it was told, whatever becomes of its writer and of the files it names."""

import json
import math
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diptych.tracking.events import (
    EVENT_TYPES,
    INCOMPLETE_TAG,
    ArtifactLogged,
    DatasetLogged,
    Event,
    FigureLogged,
    ImageLogged,
    MetricsLogged,
    ModelLogged,
    ParamsLogged,
    ParentRun,
    RunEnded,
    RunReused,
    RunStarted,
    SummaryLogged,
    TableLogged,
    TagsSet,
)
from diptych.tracking.journal import (
    EVENTS_FILE,
    Journal,
    JournalError,
    JournalReader,
    about,
    delete_journal,
    is_being_written,
)

PARENT = ParentRun(None, "key", "mnist cnn:ä", {"a.b": "1"}, {"t": "line\nbreak"})
PLAIN: list[Event] = [
    RunStarted("train_cnn", {"tag": "ü \u2028 \x00"}, PARENT, 1),
    RunStarted("alone", {}, None, 2),
    ParamsLogged({"cnn.rate": "0.001"}),
    MetricsLogged({"loss_nats": 0.1, "tiny": 5e-324}, 3, 4),
    MetricsLogged({}, None, 4),
    SummaryLogged({"accuracy": 0.995}, 5),
    TagsSet({"a": "b"}),
    ImageLogged("samples/prior", bytes(range(256)), 1, 6),
    FigureLogged("plots/curves.png", b"png"),
    DatasetLogged("mnist", "00" * 32, "data/processed", {"train": 5}, [1, 28, 28], "training"),
    RunReused("abc", is_headline=True),
    RunEnded("FINISHED", 7),
]


def written(folder: Path, *events: Event) -> Path:
    journal = Journal(folder, {"store": "sqlite"})
    for event in events:
        journal.append(event)
    journal.close()
    return folder


def read(folder: Path) -> list[Event]:
    return [event for event, _ in JournalReader(folder).new_events()]


def test_every_plain_event_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read(written(tmp_path / "run", *PLAIN)) == PLAIN


def test_files_are_copied_and_outlive_what_was_named(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "model" / "deep").mkdir(parents=True)
    (source / "model" / "deep" / "weights").write_bytes(b"\x00\xff")
    (source / "table.parquet").write_text("table")
    (source / "note.txt").write_text("note")
    named: list[Event] = [
        ModelLogged(str(source / "model"), "cnn"),
        TableLogged(str(source / "table.parquet"), "per_image"),
        ArtifactLogged(str(source / "note.txt"), "folder"),
        ArtifactLogged(str(source / "model"), None),
    ]
    assert {type(event) for event in (*PLAIN, *named)} == set(EVENT_TYPES)
    folder = written(tmp_path / "run", *named)
    source.rename(tmp_path / "gone")

    model, table, note, artifact = read(folder)
    assert isinstance(model, ModelLogged)
    assert isinstance(table, TableLogged)
    assert isinstance(note, ArtifactLogged)
    assert isinstance(artifact, ArtifactLogged)
    assert (model.name, table.name, note.folder, artifact.folder) == (
        *("cnn", "per_image", "folder", None),
    )
    assert Path(model.folder, "deep", "weights").read_bytes() == b"\x00\xff"
    assert Path(table.path).read_text() == "table"
    assert Path(note.path).read_text() == "note"
    # MLflow calls an artifact by the name of its path.
    assert [Path(event.path).name for event in (note, artifact)] == ["note.txt", "model"]


@given(st.floats(allow_infinity=False))
def test_no_digit_of_a_metric_is_lost(
    tmp_path_factory: pytest.TempPathFactory, value: float
) -> None:
    folder = written(tmp_path_factory.mktemp("m") / "run", MetricsLogged({"x": value}, 1, 2))
    (event,) = read(folder)
    assert isinstance(event, MetricsLogged)
    found = event.metrics["x"]
    assert found == value or (math.isnan(found) and math.isnan(value))


def refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is no JSON")


def test_every_line_is_json_and_the_first_says_what_it_is(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", MetricsLogged({"x": math.nan}, 1, 2), *PLAIN)
    lines = (folder / EVENTS_FILE).read_bytes().split(b"\n")
    first, *events = (json.loads(line, parse_constant=refuse) for line in lines[:-1])
    assert first == {"journal": 1, "store": "sqlite"}
    assert len(events) == 1 + len(PLAIN)


def test_a_torn_last_line_waits_for_its_rest(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", *PLAIN)
    path = folder / EVENTS_FILE
    content = path.read_bytes()
    reader, found = JournalReader(folder), []
    for size in range(0, len(content) + 1, 7):
        path.write_bytes(content[:size])
        events = [event for event, _ in reader.new_events()]
        found += events
        assert found == PLAIN[: max(0, content[:size].count(b"\n") - 1)]
    path.write_bytes(content)
    assert found + [event for event, _ in reader.new_events()] == PLAIN


def test_an_offset_is_where_its_line_ends(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", *PLAIN)
    content = (folder / EVENTS_FILE).read_bytes()
    offsets = [offset for _, offset in JournalReader(folder).new_events()]
    assert [content[:offset].count(b"\n") for offset in offsets] == [
        number + 2 for number in range(len(PLAIN))
    ]
    assert {content[offset - 1 : offset] for offset in offsets} == {b"\n"}


DAMAGED = pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        "3",
        '{"event": "Unknown"}',
        '{"event": "TagsSet"}',
        '{"event": "TagsSet", "tags": {}, "more": 1}',
        '{"event": "RunStarted", "name": "a", "tags": {}, "parent": 3, "time_ms": 1}',
        '{"tags": {}}',
    ],
)


@DAMAGED
def test_a_damaged_line_reads_as_a_tag_that_says_so(tmp_path: Path, line: str) -> None:
    folder = written(tmp_path / "run", TagsSet({"a": "1"}))
    path = folder / EVENTS_FILE
    content = path.read_text()
    path.write_text(f"{content}{line}\n{content.splitlines()[-1]}\n")
    before, damaged, after = read(folder)
    assert before == after == TagsSet({"a": "1"})
    assert isinstance(damaged, TagsSet)
    what = f"{EVENTS_FILE}: byte {len(content)}: must be an event (got "
    assert damaged.tags[INCOMPLETE_TAG].startswith(what)


@DAMAGED
def test_a_start_that_is_damaged_reads_as_another_start(tmp_path: Path, line: str) -> None:
    folder = written(tmp_path / "run", *PLAIN)
    path = folder / EVENTS_FILE
    first, _, *others = path.read_text().split("\n")
    path.write_text("\n".join([first, line, *others]))
    start, *events = read(folder)
    assert isinstance(start, RunStarted)
    assert (start.name, start.parent, list(start.tags)) == ("run", None, [INCOMPLETE_TAG])
    assert events == PLAIN[1:]


def test_an_event_whose_file_is_gone_is_damaged_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello")
    artifact = ArtifactLogged(str(tmp_path / "note.txt"), None)
    folder = written(tmp_path / "run", PLAIN[0], FigureLogged("a.png", b"a"), artifact, PLAIN[-1])
    for path in (folder / "files").rglob("*.*"):
        path.unlink()
    start, *damaged, end = read(folder)
    assert (start, end) == (PLAIN[0], PLAIN[-1])
    assert [isinstance(one, TagsSet) and list(one.tags) for one in damaged] == [
        [INCOMPLETE_TAG]
    ] * 2


def test_a_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / EVENTS_FILE).write_text('{"journal": 2}\n')
    with pytest.raises(JournalError, match=r"must be a journal of version 1 \(got 2\)"):
        read(tmp_path)


@pytest.mark.parametrize("line", ["{}", "x", "[]", ""])
def test_a_damaged_first_line_says_nothing_and_the_others_all(tmp_path: Path, line: str) -> None:
    folder = written(tmp_path / "run", *PLAIN)
    path = folder / EVENTS_FILE
    path.write_text("\n".join([line, *path.read_text().split("\n")[1:]]))
    assert read(folder) == PLAIN
    assert about(folder) == {}


def test_what_cannot_be_written_leaves_no_trace(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run", {})
    with pytest.raises(FileNotFoundError):
        journal.append(ArtifactLogged(str(tmp_path / "missing"), None))
    size = (tmp_path / "run" / EVENTS_FILE).stat().st_size
    large = tmp_path / "large.bin"
    large.write_bytes(bytes(1000))
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 40, unlimited[1]))
    try:
        with pytest.raises(OSError, match="no room"):
            journal.append(TagsSet({"long": "x" * 100}))
        for event in (ArtifactLogged(str(large), None), FigureLogged("a.png", bytes(1000))):
            with pytest.raises(OSError, match="File too large"):
                journal.append(event)
        assert list((tmp_path / "run" / "files").iterdir()) == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    journal.append(TagsSet({"a": "1"}))
    journal.close()
    assert read(tmp_path / "run") == [TagsSet({"a": "1"})]


KILLED = """
import sys, time
from pathlib import Path
from diptych.tracking.events import TagsSet
from diptych.tracking.journal import Journal
journal = Journal(Path(sys.argv[1]), {})
journal.append(TagsSet({"a": "1"}))
print(flush=True)
time.sleep(60)
"""


def test_a_journal_is_locked_for_as_long_as_its_writer_lives(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert is_being_written(tmp_path / "run")
        process.send_signal(signal.SIGKILL)
    assert not is_being_written(tmp_path / "run")
    assert read(tmp_path / "run") == [TagsSet({"a": "1"})]


def test_a_deleted_journal_leaves_nothing(tmp_path: Path) -> None:
    delete_journal(written(tmp_path / "run", *PLAIN))
    assert list(tmp_path.iterdir()) == []
    assert not is_being_written(tmp_path / "run")
