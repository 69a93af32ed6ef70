import gzip
from pathlib import Path

import numpy as np
import pytest

from diptych.images.idx import write_idx
from diptych.images.integrity import DataError
from diptych.images.raw import fetch_raw, read_raw
from diptych.images.sources import FolderSource, Source, WebSource

from .conftest import Contents, body, fill, gzipped, published


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
    lines: list[str] = []
    fetch_raw(published(contents), sources, tmp_path / "raw", lines.append)
    assert files_in(tmp_path / "raw") == contents
    none, refused, complete = lines
    assert none == f"{tmp_path}/none: is no folder"
    assert refused.startswith(f"{tmp_path}/wrong: train-images-idx3-ubyte: sha256 must be ")
    assert complete == f"{tmp_path}/right: small is complete, verified"


def test_sources_complete_each_other(tmp_path, contents):
    names = list(contents)
    first = fill(tmp_path / "a", {f"{names[0]}.gz": gzipped(contents[names[0]])})
    second = fill(tmp_path / "b", {name: contents[name] for name in names[1:]})
    sources = [FolderSource(first), FolderSource(second)]
    fetch_raw(published(contents), sources, tmp_path / "raw", list[str]().append)
    assert files_in(tmp_path / "raw") == contents


def test_a_gzip_bomb_on_the_web_is_refused_and_the_next_source_tried(web, tmp_path, contents):
    bomb = gzip.compress(bytes(1_000_000))
    web.routes["/train-images-idx3-ubyte.gz"] = body(bomb)
    sources: list[Source] = [
        WebSource(f"{web.origin}/", web.transport()),
        FolderSource(fill(tmp_path, contents)),
    ]
    lines: list[str] = []
    fetch_raw(published(contents), sources, tmp_path / "raw", lines.append)
    assert "train-images-idx3-ubyte.gz: must inflate to at most" in lines[0]
    assert files_in(tmp_path / "raw") == contents


def test_nothing_unverified_is_written_and_the_end_is_one_line(web, tmp_path, contents):
    name, content = next(iter(contents.items()))
    web.routes[f"/cut/{name}.gz"] = body(gzipped(content)[:-9])
    web.routes[f"/short/{name}.gz"] = body(gzipped(content)[:-9], num_announced=len(content))
    web.routes[f"/wrong/{name}.gz"] = body(gzipped(content[:-1] + b"\xff"))
    sources = [WebSource(f"{web.origin}/{way}/", web.transport()) for way in ("cut", "short")]
    sources.append(WebSource(f"{web.origin}/wrong/", web.transport()))
    lines: list[str] = []
    with pytest.raises(DataError, match=f"dataset.sources: .* small .got none for {name}, [^\n]*$"):
        fetch_raw(published(contents), sources, tmp_path / "raw", lines.append)
    assert files_in(tmp_path / "raw") == {}
    assert len(lines) == 3


def test_a_verified_file_is_not_fetched_again(tmp_path, contents):
    fill(tmp_path, contents)
    lines: list[str] = []
    fetch_raw(published(contents), [], tmp_path, lines.append)
    assert lines == [f"{tmp_path}: small is there, verified"]


def test_a_damaged_file_is_fetched_again(tmp_path, contents):
    right = fill(tmp_path / "right", contents)
    name = "t10k-labels-idx1-ubyte"
    for damaged in (b"", contents[name][:-1] + b"\x02", gzipped(contents[name])):
        raw = fill(tmp_path / "raw", {**contents, name: damaged})
        fetch_raw(published(contents), [FolderSource(right)], raw, list[str]().append)
        assert files_in(raw) == contents


def test_files_known_by_their_gzip_md5_come_from_those_gzip_files_only(tmp_path, contents):
    dataset = published(contents, gz_only=True)
    plain = fill(tmp_path / "plain", contents)
    right = fill(tmp_path / "gz", {f"{name}.gz": gzipped(one) for name, one in contents.items()})
    raw = fill(tmp_path / "raw", contents)
    with pytest.raises(DataError, match="got none for train-images-idx3-ubyte"):
        fetch_raw(dataset, [FolderSource(plain)], raw, list[str]().append)
    fetch_raw(dataset, [FolderSource(plain), FolderSource(right)], raw, list[str]().append)
    assert files_in(raw) == contents


def test_both_parts_are_read_in_order(tmp_path, contents):
    fill(tmp_path, contents)
    dataset = published(contents)
    for num, image_set in (
        (12, read_raw(tmp_path, dataset, "train")),
        (6, read_raw(tmp_path, dataset, "test")),
    ):
        assert image_set.images.shape == (num, 1, 28, 28)
        assert np.array_equal(image_set.labels, np.arange(num) % 3)


def test_a_missing_or_wrong_file_is_named(tmp_path, contents):
    with pytest.raises(DataError, match=f"{tmp_path}/train-images-idx3-ubyte: cannot be read"):
        read_raw(tmp_path, published(contents), "train")
    name = "t10k-labels-idx1-ubyte"
    fill(tmp_path, {**contents, name: contents[name][:-1] + b"\x01"})
    with pytest.raises(DataError, match=f"{tmp_path}/{name}: sha256 must be [0-9a-f]{{64}} .got "):
        read_raw(tmp_path, published(contents), "test")


def test_a_label_file_must_fit_its_images(tmp_path, contents):
    name = "train-labels-idx1-ubyte"
    few = {**contents, name: write_idx(np.zeros(11, np.uint8))}
    with pytest.raises(DataError, match=f"{name}: must have 12 labels, one per image .got 11"):
        read_raw(fill(tmp_path, few), published(few), "train")
    large = {**contents, name: write_idx(np.full(12, 3, np.uint8))}
    with pytest.raises(DataError, match=f"{name}: labels must be < 3 .got 3"):
        read_raw(fill(tmp_path, large), published(large), "train")
