"""Files that are there whole or not at all."""

import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


class FileError(UserError):
    """A file is missing, unreadable or not what it should be."""


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a kill at any moment leaves the old content or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _errors_naming(path):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
            _fsync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON with sorted keys, so that equal values are equal bytes; NaN and infinity raise."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_atomically(path, f"{text}\n".encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        FileError: when the file is missing, unreadable, or not a JSON object; NaN and Infinity,
            which Python would read, are no JSON.
    """
    try:
        value = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}: is not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise FileError(f"{path}: must be a JSON object (got {type(value).__name__})")
    return value


def write_csv(path: Path, rows: Sequence[Mapping[str, float | int]]) -> None:
    """Write numbers as CSV: columns in the first row's order, no digit of a float lost.

    Args:
        path: The file.
        rows: All with the keys of the first.

    Raises:
        ValueError: when a row has other keys; nothing is written.
    """
    for number, row in enumerate(rows, start=1):
        if row.keys() != rows[0].keys():
            raise ValueError(
                f"{path}: row {number} must have the keys {list(rows[0])} (got {list(row)})"
            )
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def write_parquet(path: Path, table: "pd.DataFrame") -> None:
    """Write a table as Parquet, without its index; equal tables give equal bytes."""
    content = io.BytesIO()
    table.to_parquet(content, index=False)
    write_atomically(path, content.getvalue())


@contextlib.contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary folder that takes the place of `path` only if the block succeeds.

    A kill leaves the old folder or the new one at `path`, with one exception: between two renames
    in a row the old one stands beside it, whole, as `.NAME.replaced`. The next use puts it back.
    What a kill leaves of the temporary folder stays, hidden, beside `path`.

    Args:
        path: A folder, there or not; everything in it is replaced. One writer at a time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f".{path.name}.replaced"
    _settle(path, aside)
    with _errors_naming(path):
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        temporary.chmod(0o755)
        yield temporary
        with _errors_naming(path):
            if path.is_dir() and not path.is_symlink():
                path.replace(aside)
            temporary.replace(path)
            _fsync_folder(path.parent)
    finally:
        _settle(path, aside)
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _errors_naming(path: Path) -> Iterator[None]:
    """Have an OSError name what was to be written: a full disk names nothing, others our own."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def _settle(path: Path, aside: Path) -> None:
    """Put back the folder that was renamed aside, or delete it if another took its place."""
    if path.exists():
        shutil.rmtree(aside, ignore_errors=True)
    elif aside.exists():
        aside.replace(path)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _fsync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
