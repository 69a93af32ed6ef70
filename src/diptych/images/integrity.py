"""Whether bytes are the ones that were published, found out before anything parses them."""

import hashlib
import zlib
from pathlib import Path
from typing import Literal

from diptych.errors import UserError
from diptych.images.datasets import DatasetFile

_GZIP_MAGIC = b"\x1f\x8b"


class DataError(UserError):
    """Image data are missing, damaged or not what they should be."""


def verified_idx(content: bytes, file: DatasetFile) -> bytes:
    """Return a published file's IDX bytes if they are intact.

    Args:
        content: The file as a source gave it, plain or gzipped.
        file: What it must be.

    Returns:
        The uncompressed IDX bytes.

    Raises:
        DataError: naming the file, the published digest and the one found.
    """
    if file.gz_md5 is not None:
        _check_digest(content, "md5", file.gz_md5, f"{file.name}.gz")
    if file.gz_md5 is not None or content.startswith(_GZIP_MAGIC):
        content = inflate(content, max_bytes=file.num_bytes, where=f"{file.name}.gz")
    if file.idx_sha256 is not None:
        check_sha256(content, file.idx_sha256, where=file.name)
    return content


def check_sha256(content: bytes, expected: str, where: str) -> None:
    """Check bytes against the sha256 that they must have, in hexadecimal.

    Raises:
        DataError: beginning with `where`, naming the expected digest and the one found.
    """
    _check_digest(content, "sha256", expected, where)


def inflate(content: bytes, max_bytes: int, where: str) -> bytes:
    """Decompress one gzip stream without ever holding more than it may be long.

    Args:
        content: The gzipped bytes.
        max_bytes: Largest permitted size of the result, in bytes.
        where: Names the content in errors.

    Raises:
        DataError: when it is no complete gzip stream or inflates to more than `max_bytes`.
    """
    stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        inflated = stream.decompress(content, max_bytes + 1)
    except zlib.error as error:
        raise DataError(f"{where}: must be intact gzip data ({error})") from None
    if len(inflated) > max_bytes:
        raise DataError(f"{where}: must inflate to at most {max_bytes} bytes (got more)")
    if not stream.eof:
        raise DataError(f"{where}: must be a whole gzip file (got one that is cut short)")
    if stream.unused_data:
        raise DataError(
            f"{where}: must end with its gzip data (got {len(stream.unused_data)} bytes more)"
        )
    return inflated


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Read a file that is not expected to be larger than `max_bytes`.

    Raises:
        DataError: when it cannot be read or is larger.
    """
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) > max_bytes:
        raise DataError(f"{path}: must have at most {max_bytes} bytes (got more)")
    return content


def _check_digest(
    content: bytes, algorithm: Literal["sha256", "md5"], expected: str, where: str
) -> None:
    found = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise DataError(f"{where}: {algorithm} must be {expected} (got {found})")
