"""The raw folder: a data set's published files, uncompressed, and the digests verified."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import UserError
from diptych.files import folder_written_whole, read_json, write_atomically, write_json
from diptych.images.arrays import ImageSet
from diptych.images.datasets import Dataset, DatasetFile, Part
from diptych.images.idx import read_images, read_labels
from diptych.images.integrity import DataError, check_sha256, read_bounded, verified_idx
from diptych.images.sources import Source

MANIFEST_FILE = "raw.json"
"""Names the data set and the sha256 of each file's bytes as they were when verified."""

NOVEL_FOLDER = "novel"
"""Within the raw folder: the test files of the data set that is to be found novel, if any."""

Report = Callable[[str], None]
"""Takes text as it comes, line ends included."""


def fetch_raw(
    dataset: Dataset,
    sources: Iterable[Source],
    folder: Path,
    report: Report,
    parts: Sequence[Part] = ("train", "test"),
) -> None:
    """Fill a folder with a data set's files, from the first sources that have the right bytes.

    Files that are there and verified are not fetched again. Nothing unverified is ever written, and
    the folder is replaced whole or left as it was.

    Args:
        dataset: Whose files.
        sources: Tried in turn.
        folder: Gets the files and `raw.json`, and holds nothing else afterwards.
        report: Gets one line per source: what it gave or why it failed.
        parts: Which files.

    Raises:
        DataError: when a file is still missing in the end.
    """
    files = [file for part in parts for file in dataset.part(part)]
    recorded = _recorded_sha256(folder, dataset)
    contents = _verified_contents(folder, files, recorded)
    missing = [file for file in files if file.name not in contents]
    if not missing:
        report(f"{folder}: {dataset.name} is there, verified\n")
    else:
        contents |= _collect(dataset, missing, sources, report)
    manifest = _manifest(dataset, contents)
    if missing or recorded != manifest["sha256"]:
        with folder_written_whole(folder) as temporary:
            for name, content in contents.items():
                write_atomically(temporary / name, content)
            write_json(temporary / MANIFEST_FILE, manifest)


def read_raw(folder: Path, dataset: Dataset, part: Part) -> ImageSet:
    """Read the official training or test file, verified against its published or recorded digest.

    Raises:
        UserError: when the folder holds another data set, or a file is missing, not the one that
            was verified, or no valid IDX file.
    """
    images_file, labels_file = dataset.part(part)
    recorded = _read_manifest(folder, dataset, (images_file, labels_file))
    images_path, labels_path = folder / images_file.name, folder / labels_file.name
    images = read_images(_read_checked(folder, images_file, recorded), str(images_path))
    labels_content = _read_checked(folder, labels_file, recorded)
    labels = read_labels(labels_content, len(dataset.class_names), str(labels_path))
    if len(images) != len(labels):
        raise DataError(
            f"{labels_path}: must have {len(images)} labels, one per image (got {len(labels)})"
        )
    return ImageSet(images[:, np.newaxis], labels.astype(np.int64))


class _Line:
    """A source's one line: it may begin before a silence, and ends with the outcome."""

    def __init__(self, source: Source, report: Report) -> None:
        self._begin, self._report = f"{source}: ", report

    def begin(self, text: str) -> None:
        self._report(f"{self._begin}{text} ... ")
        self._begin = ""

    def end(self, text: str) -> None:
        self._report(f"{self._begin}{text}\n")


def _collect(
    dataset: Dataset, files: Iterable[DatasetFile], sources: Iterable[Source], report: Report
) -> dict[str, bytes]:
    missing, contents = list(files), dict[str, bytes]()
    for source in sources:
        line = _Line(source, report)
        try:
            for content in source.read(tuple(missing), line.begin):
                contents[missing[0].name] = verified_idx(content, missing[0])
                missing.pop(0)
        except DataError as error:
            line.end(str(error))
        if not missing:
            line.end(f"{dataset.name} is complete, verified")
            return contents
    raise DataError(
        f"dataset.sources: one must have the right bytes for {dataset.name} "
        f"(got none for {', '.join(file.name for file in missing)})"
    )


def _manifest(dataset: Dataset, contents: Mapping[str, bytes]) -> dict[str, Any]:
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    return {"dataset": dataset.name, "sha256": digests}


def _read_manifest(
    folder: Path, dataset: Dataset, files: Sequence[DatasetFile] = ()
) -> dict[str, str]:
    """Return the recorded sha256 by file name; these files' are among them."""
    path = folder / MANIFEST_FILE
    manifest = read_json(path)
    if (name := manifest.get("dataset")) != dataset.name:
        raise DataError(f"{path}: dataset must be {dataset.name} (got {name!r})")
    digests, names = manifest.get("sha256"), [file.name for file in files]
    if not isinstance(digests, dict) or not digests.keys() >= set(names):
        raise DataError(f"{path}: sha256 must name {', '.join(names)} (got {digests!r})")
    return {name: str(digest) for name, digest in digests.items()}


def _recorded_sha256(folder: Path, dataset: Dataset) -> dict[str, str]:
    try:
        return _read_manifest(folder, dataset)
    except UserError:
        return {}


def _verified_contents(
    folder: Path, files: Iterable[DatasetFile], recorded: Mapping[str, str]
) -> dict[str, bytes]:
    contents = {}
    for file in files:
        try:
            contents[file.name] = _read_checked(folder, file, recorded)
        except DataError:
            continue  # it will be fetched
    return contents


def _read_checked(folder: Path, file: DatasetFile, recorded: Mapping[str, str]) -> bytes:
    """Read a file; a published digest outranks the recorded one."""
    path = folder / file.name
    content = read_bounded(path, file.num_bytes)
    expected = file.idx_sha256 or recorded.get(file.name, "recorded")
    check_sha256(content, expected, where=str(path))
    return content
