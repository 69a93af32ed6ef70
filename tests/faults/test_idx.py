"""B1: whatever bytes an IDX file holds, they are the whole array or one line."""

import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torchvision.datasets import mnist

from diptych.images.idx import read_images, read_labels, write_idx
from diptych.images.integrity import DataError
from tests.faults.tiers import trials

NUM_CLASSES = 10
NUM_STOCK = 300
WORDS = (0, 1, 2, 3, 7, 10, 255, 256, 2**16, 2**31 - 1, 2**31, 2**32 - 1)


def whole_file(source: random.Random) -> bytes:
    shape = [source.randint(1, 4) for _ in range(source.choice((1, 3)))]
    numbers = np.frombuffer(source.randbytes(int(np.prod(shape))), np.uint8)
    if source.random() < 0.5:
        numbers = numbers % NUM_CLASSES
    return write_idx(numbers.reshape(shape))


def flipped(source: random.Random) -> bytes:
    content = bytearray(whole_file(source))
    for _ in range(source.randint(1, 3)):
        content[source.randrange(len(content))] ^= 1 << source.randrange(8)
    return bytes(content)


def cut_or_longer(source: random.Random) -> bytes:
    content = whole_file(source)
    if source.random() < 0.3:
        return content + source.randbytes(source.randint(1, 9))
    return content[: source.randrange(len(content))]


def of_another_header(source: random.Random) -> bytes:
    content = bytearray(whole_file(source))
    place = 4 * source.randrange(min(4, len(content) // 4))
    struct.pack_into(">I", content, place, source.choice(WORDS))
    return bytes(content)


def of_another_type(source: random.Random) -> bytes:
    content = bytearray(whole_file(source))
    content[source.choice((2, 3))] = source.randrange(256)
    return bytes(content)


def noise(source: random.Random) -> bytes:
    return source.randbytes(source.randrange(64))


KINDS: tuple[Callable[[random.Random], bytes], ...] = (
    whole_file,
    flipped,
    cut_or_longer,
    of_another_header,
    of_another_type,
    noise,
)


def case(number: int) -> bytes:
    source = random.Random(number)
    return KINDS[number % len(KINDS)](source)


def labels_of(content: bytes, where: str) -> np.ndarray:
    return read_labels(content, NUM_CLASSES, where)


def outcome(read: Callable[[bytes, str], np.ndarray], content: bytes) -> bytes | str:
    """What was read, written again; or the error's line."""
    try:
        return write_idx(read(content, "file"))
    except DataError as error:
        return str(error)


def holds(content: bytes) -> bool:
    outcomes = [outcome(read, content) for read in (read_images, labels_of)]
    return all(
        one == content
        if isinstance(one, bytes)
        else one.startswith("file: ") and one.isprintable() and len(one) < 300
        for one in outcomes
    )


def stock_holds(content: bytes, path: Path) -> bool:
    """Whether torchvision reads the whole array of the file, or says what is wrong."""
    path.write_bytes(content)
    reader = mnist.read_image_file if content[3:4] == b"\3" else mnist.read_label_file
    own = read_images if content[3:4] == b"\3" else labels_of
    try:
        reader(str(path))
    except (KeyError, IndexError, AssertionError, struct.error) as error:
        return len(str(error).split()) > 2  # neither a bare key nor nothing
    except Exception as error:
        return bool(str(error))
    return isinstance(outcome(own, content), bytes)


def test_any_bytes_are_the_whole_array_or_one_line(promise, tmp_path):
    num = trials(quick=3000, full=100_000)
    failed = [number for number in range(num) if not holds(case(number))]
    stock = sum(stock_holds(case(number), tmp_path / "file") for number in range(NUM_STOCK))
    print(failed[:10])
    promise(
        "B1",
        "generated files",
        num,
        num - len(failed),
        stock_tried=NUM_STOCK,
        stock_survived=stock,
    )


def test_the_cases_are_of_both_sorts():
    read = [
        isinstance(outcome(one, case(number)), bytes)
        for number in range(600)
        for one in (read_images, labels_of)
    ]
    assert 50 < sum(read) < 1000
