import math
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from diptych.files import (
    FileError,
    folder_written_whole,
    read_json,
    sha256_of,
    write_atomically,
    write_csv,
    write_json,
    write_parquet,
)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_file_is_written_with_its_folders_and_replaced(tmp_path):
    path = tmp_path / "new" / "folder" / "file.txt"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert content(path.parent) == {"file.txt": b"two"}
    assert path.stat().st_mode & 0o777 == 0o644, "readable by others, unlike a temporary file"


def test_a_write_that_fails_leaves_no_trace(tmp_path):
    path = tmp_path / "taken"
    path.mkdir()
    with pytest.raises(OSError, match="taken"):
        write_atomically(path, b"content")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]


def test_sha256_is_that_of_the_bytes(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_equal_values_are_equal_bytes_of_json(tmp_path):
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    write_json(first, {"b": [1, 0.1], "a": {"y": "é", "x": None}})
    write_json(second, {"a": {"x": None, "y": "é"}, "b": [1, 0.1]})
    assert first.read_bytes() == second.read_bytes()
    assert "é" in first.read_text(encoding="utf-8")
    assert read_json(first) == {"a": {"x": None, "y": "é"}, "b": [1, 0.1]}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_json_cannot_say_is_refused_and_the_old_file_stays(tmp_path, value):
    path = tmp_path / "metrics.json"
    write_json(path, {"loss": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"loss": value})
    assert content(tmp_path) == {"metrics.json": b'{\n  "loss": 1.0\n}\n'}


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, r"cannot be read \(No such file or directory\)"),
        (b"", r"is not valid JSON \(Expecting value.*\)"),
        (b'{"a": 1', r"is not valid JSON \(.*\)"),
        (b"\xff\xfe\xfa", r"is not valid JSON \(.*\)"),
        (b"[" * 100_000, r"is not valid JSON \(.*\)"),
        (b"[1]", r"must be a JSON object \(got list\)"),
        (b'{"a": NaN}', r"is not valid JSON \(NaN is no JSON number\)"),
        (b'{"a": [-Infinity]}', r"is not valid JSON \(-Infinity is no JSON number\)"),
    ],
)
def test_bad_json_is_one_line(tmp_path, monkeypatch, found, message):
    monkeypatch.chdir(tmp_path)
    path = Path("x.json")
    if found is not None:
        path.write_bytes(found)
    with pytest.raises(FileError, match=f"^x.json: {message}$") as caught:
        read_json(path)
    assert "\n" not in str(caught.value)


def test_every_digit_survives_csv_and_columns_keep_their_order(tmp_path):
    rows = [
        {"epoch": 1, "zeta": 0.1 + 0.2, "alpha": float(np.float32(0.1))},
        {"epoch": 2, "alpha": 1e-300, "zeta": 1 / 3},
    ]
    path = tmp_path / "plots" / "curves.csv"
    write_csv(path, rows)
    expected = (
        "epoch,zeta,alpha\n1,0.30000000000000004,0.10000000149011612\n2,0.3333333333333333,1e-300\n"
    )
    assert path.read_bytes().decode() == expected


@pytest.mark.parametrize("last", [{"epoch": 2}, {"epoch": 2, "loss": 0.5, "rate": 0.5}])
def test_a_row_of_other_columns_is_refused_and_nothing_written(tmp_path, last):
    path = tmp_path / "curves.csv"
    with pytest.raises(ValueError, match=r"row 2 must have the keys \['epoch', 'loss'\] \(got \["):
        write_csv(path, [{"epoch": 1, "loss": 1.0}, last])
    assert not path.exists()


def test_pandas_reads_back_the_csv_that_was_written(tmp_path):
    table = pd.DataFrame({"epoch": [1, 2, 3], "loss_nats": np.linspace(1, 2, 3) / 7})
    rows = [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
    write_csv(tmp_path / "curves.csv", rows)
    read = pd.read_csv(tmp_path / "curves.csv")
    pd.testing.assert_frame_equal(read, table, check_exact=True)


def test_equal_tables_are_equal_bytes_of_parquet(tmp_path):
    table = pd.DataFrame({"label": [3, 1], "nll_nats": [0.25, 1e-9]}, index=[7, 8])
    first, second = tmp_path / "first.parquet", tmp_path / "second.parquet"
    write_parquet(first, table)
    write_parquet(second, table.copy())
    assert first.read_bytes() == second.read_bytes()
    pd.testing.assert_frame_equal(pd.read_parquet(first), table.reset_index(drop=True))


def test_a_folder_takes_the_place_of_the_old_one_whole(tmp_path):
    folder = tmp_path / "models" / "cnn"
    folder.mkdir(parents=True)
    (folder / "old").write_bytes(b"old")
    with folder_written_whole(folder) as temporary:
        (temporary / "new").write_bytes(b"new")
        assert content(folder) == {"old": b"old"}
    assert content(folder) == {"new": b"new"}
    assert folder.stat().st_mode & 0o777 == 0o755
    assert [entry.name for entry in folder.parent.iterdir()] == ["cnn"]


@pytest.mark.parametrize("error", [RuntimeError("half-way"), KeyboardInterrupt("half-way")])
def test_a_failure_half_way_leaves_the_old_folder(tmp_path, error):
    folder = tmp_path / "cnn"
    folder.mkdir()
    (folder / "old").write_bytes(b"old")

    def write_half() -> None:
        with folder_written_whole(folder) as temporary:
            (temporary / "new").write_bytes(b"new")
            raise error

    with pytest.raises(type(error), match="half-way"):
        write_half()
    assert content(folder) == {"old": b"old"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["cnn"]


REPLACE_AND_DIE = """
import os, pathlib, signal, sys
from diptych.files import folder_written_whole

folder, deadly_event, left = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

def die_at(event, _arguments):
    global left
    if event == deadly_event:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

with folder_written_whole(folder) as temporary:
    (temporary / "file").write_bytes(b"new")
    sys.addaudithook(die_at)
"""


@pytest.mark.parametrize(
    ("event", "number", "at_once", "after_next_use"),
    [
        ("os.rename", 1, b"old", b"old"),
        ("os.rename", 2, None, b"old"),
        ("shutil.rmtree", 1, b"new", b"new"),
    ],
)
def test_a_kill_while_a_folder_is_replaced_loses_neither(
    tmp_path, event, number, at_once, after_next_use
):
    folder = tmp_path / "cnn"
    folder.mkdir()
    (folder / "file").write_bytes(b"old")
    command = [sys.executable, "-c", REPLACE_AND_DIE, str(folder), event, str(number)]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    assert (content(folder) if folder.exists() else {}).get("file") == at_once
    with pytest.raises(RuntimeError), folder_written_whole(folder):
        raise RuntimeError
    assert content(folder) == {"file": after_next_use}
    assert not (tmp_path / ".cnn.replaced").exists()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_folder_is_not_replaced_by_one(tmp_path, kind):
    path, target = tmp_path / "path", tmp_path / "target"
    target.mkdir()
    path.symlink_to(target) if kind == "link" else path.write_bytes(b"file")
    with pytest.raises(OSError, match="Not a directory"), folder_written_whole(path):
        pass
    assert path.is_symlink() == (kind == "link")
    assert {entry.name for entry in tmp_path.iterdir()} == {"path", "target"}
