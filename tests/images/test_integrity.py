import gzip
import hashlib
import tracemalloc

import pytest

from diptych.images.datasets import DATASETS, DatasetFile
from diptych.images.integrity import DataError, inflate, read_bounded, verified_idx

from .conftest import gzipped

CONTENT = b"some idx bytes"
BY_SHA256 = DatasetFile(
    "small", "labels", len(CONTENT), idx_sha256=hashlib.sha256(CONTENT).hexdigest()
)
BY_MD5 = DatasetFile(
    "small",
    "labels",
    len(CONTENT),
    gz_md5=hashlib.md5(gzipped(CONTENT), usedforsecurity=False).hexdigest(),
)


def test_a_known_sha256_admits_the_plain_and_the_gzipped_file():
    assert verified_idx(CONTENT, BY_SHA256) == CONTENT
    assert verified_idx(gzipped(CONTENT), BY_SHA256) == CONTENT
    assert verified_idx(gzip.compress(CONTENT, 1, mtime=7), BY_SHA256) == CONTENT


def test_a_known_md5_admits_the_published_gzip_file_only():
    assert verified_idx(gzipped(CONTENT), BY_MD5) == CONTENT
    for other in (CONTENT, gzip.compress(CONTENT, mtime=7)):
        with pytest.raises(DataError, match=f"labels.gz: md5 must be {BY_MD5.gz_md5}"):
            verified_idx(other, BY_MD5)


@pytest.mark.parametrize("position", range(len(CONTENT)))
def test_every_flipped_bit_is_found(position):
    flipped = bytearray(CONTENT)
    flipped[position] ^= 1 << position % 8
    found = hashlib.sha256(flipped).hexdigest()
    with pytest.raises(
        DataError, match=rf"^labels: sha256 must be {BY_SHA256.idx_sha256} \(got {found}\)$"
    ):
        verified_idx(bytes(flipped), BY_SHA256)


def test_a_gzip_bomb_is_not_inflated_beyond_what_is_expected():
    bomb = gzip.compress(bytes(30_000_000), 1)
    tracemalloc.start()
    with pytest.raises(DataError, match="bomb: must inflate to at most 1000 bytes"):
        inflate(bomb, 1000, "bomb")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1_000_000


def test_incomplete_or_extended_gzip_data_are_refused():
    whole = gzipped(CONTENT)
    assert inflate(whole, len(CONTENT), "file") == CONTENT
    for cut in range(len(whole)):
        with pytest.raises(DataError, match=r"file: must be a whole gzip file"):
            inflate(whole[:cut], len(CONTENT), "file")
    with pytest.raises(DataError, match=r"must end with its gzip data \(got 3 bytes more\)"):
        inflate(whole + b"abc", len(CONTENT), "file")
    with pytest.raises(DataError, match="must be intact gzip data"):
        inflate(whole[:-8] + bytes(8), len(CONTENT), "file")


def test_a_file_is_read_up_to_its_expected_size(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    assert read_bounded(path, len(CONTENT)) == CONTENT
    with pytest.raises(DataError, match="file: must have at most 3 bytes"):
        read_bounded(path, 3)
    with pytest.raises(DataError, match=r"none: cannot be read \(No such file or directory\)"):
        read_bounded(tmp_path / "none", 3)
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)"):
        read_bounded(tmp_path, 3)


def test_each_published_file_has_one_digest_and_an_https_mirror():
    for name, dataset in DATASETS.items():
        assert dataset.name == name
        assert len(dataset.class_names) == 10
        assert all(mirror.startswith("https://") for mirror in dataset.mirrors)
        assert all(mirror.endswith("/") for mirror in dataset.mirrors)
        for file in dataset.files:
            assert file.dataset_name == name
            assert (file.idx_sha256 is None) != (file.gz_md5 is None)
            assert file.num_bytes <= file.max_stored_bytes
