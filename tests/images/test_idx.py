import re
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diptych.images.idx import read_images, read_labels, write_idx
from diptych.images.integrity import DataError

IMAGES = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=4))
LABELS = hnp.arrays(np.uint8, hnp.array_shapes(max_dims=1), elements=st.integers(0, 9))
HEADERS = st.binary(max_size=8) | st.builds(
    lambda magic, shape: struct.pack(f">I{len(shape)}I", magic, *shape),
    st.sampled_from([0x0801, 0x0803]),
    st.lists(st.integers(0, 3) | st.integers(0, 2**32 - 1), max_size=3),
)
without_deadline = settings(deadline=None, database=None)


@without_deadline
@given(IMAGES, LABELS)
def test_reading_is_the_inverse_of_writing(images, labels):
    assert np.array_equal(read_images(write_idx(images), "file"), images)
    assert np.array_equal(read_labels(write_idx(labels), 10, "file"), labels)


@without_deadline
@given(HEADERS, st.binary(max_size=40))
def test_any_bytes_are_an_array_or_one_data_error(header, rest):
    content = header + rest
    for read in (read_images, lambda content, where: read_labels(content, 10, where)):
        try:
            outcome: bytes | str = write_idx(read(content, "file"))
        except DataError as error:
            outcome = str(error)
        assert outcome == content or re.fullmatch("file: [^\n]+", str(outcome))


@without_deadline
@given(IMAGES, st.data())
def test_no_image_file_of_another_length_is_read(images, data):
    content = write_idx(images)
    cut = data.draw(st.integers(0, len(content) - 1))
    for wrong in (content[:cut], content + b"\0"):
        with pytest.raises(DataError, match="must have"):
            read_images(wrong, "file")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"file: must have at least 8 bytes \(got 0\)"),
        (write_idx(np.zeros((1, 1, 1), np.uint8)), r"magic number 00000801 \(got 00000803\)"),
        (struct.pack(">II", 0x0901, 1) + b"\0", r"magic number 00000801 \(got 00000901\)"),
        (struct.pack(">II", 0x0801, 0), r"every dimension must be >= 1 \(got \[0\]\)"),
        (struct.pack(">II", 0x0801, 2**32 - 1), r"must have 4294967303 bytes .* \(got 8\)"),
        (write_idx(np.array([0, 200], np.uint8)), r"file: labels must be < 10 \(got 200\)"),
    ],
)
def test_an_error_says_what_is_expected_and_what_was_found(content, message):
    with pytest.raises(DataError, match=message):
        read_labels(content, 10, "file")
