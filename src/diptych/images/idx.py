"""The IDX format of the MNIST family: a big-endian header, then unsigned bytes.

Source: LeCun, Cortes & Burges, "The MNIST database of handwritten digits", file formats.
"""

import math
import struct

import numpy as np
from jaxtyping import UInt8

from diptych.images.integrity import DataError

_UNSIGNED_BYTE = 0x08


def read_images(content: bytes, where: str) -> UInt8[np.ndarray, "num height width"]:
    """Read an IDX file of images.

    Args:
        content: Any bytes.
        where: Names the content in errors.

    Returns:
        Grey values from 0 to 255; a read-only view of `content`.

    Raises:
        DataError: when the bytes are anything but a whole 3-D IDX file of unsigned bytes.
    """
    return _read(content, 3, where)


def read_labels(content: bytes, num_classes: int, where: str) -> UInt8[np.ndarray, " num"]:
    """Read an IDX file of labels.

    Args:
        content: Any bytes.
        num_classes: Every label must be below it.
        where: Names the content in errors.

    Returns:
        Labels from 0 to `num_classes` - 1; a read-only view of `content`.

    Raises:
        DataError: when the bytes are anything but a whole 1-D IDX file of such labels.
    """
    labels = _read(content, 1, where)
    largest = int(labels.max())
    if largest >= num_classes:
        raise DataError(f"{where}: labels must be < {num_classes} (got {largest})")
    return labels


def write_idx(array: UInt8[np.ndarray, "..."]) -> bytes:
    """Return an array of unsigned bytes as an IDX file; `read_*` are its inverse."""
    header = struct.pack(f">HBB{array.ndim}I", 0, _UNSIGNED_BYTE, array.ndim, *array.shape)
    return header + array.tobytes()


def _read(content: bytes, num_dimensions: int, where: str) -> UInt8[np.ndarray, "..."]:
    header = struct.Struct(f">HBB{num_dimensions}I")
    if len(content) < header.size:
        raise DataError(f"{where}: must have at least {header.size} bytes (got {len(content)})")
    zero, dtype, found_dimensions, *shape = header.unpack_from(content)
    magic = (zero, dtype, found_dimensions)
    if magic != (0, _UNSIGNED_BYTE, num_dimensions):
        raise DataError(
            f"{where}: must begin with the IDX magic number 0000{_UNSIGNED_BYTE:02x}"
            f"{num_dimensions:02x} (got {content[:4].hex()})"
        )
    if 0 in shape:
        raise DataError(f"{where}: every dimension must be >= 1 (got {shape})")
    num_bytes = header.size + math.prod(shape)
    if len(content) != num_bytes:
        raise DataError(
            f"{where}: must have {num_bytes} bytes for its shape {shape} (got {len(content)})"
        )
    return np.frombuffer(content, np.uint8, offset=header.size).reshape(shape)
