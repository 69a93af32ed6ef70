"""Files hashed anew: models, arrays, and what DVC's cache keeps of the pipeline's outputs."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import join

from diptych.errors import UserError
from diptych.files import FileError, read_json, sha256_of
from diptych.images.arrays import (
    DESCRIPTION_FILE,
    IMAGES_FILE,
    LABELS_FILE,
    NOVEL_FILE,
    NOVEL_FOLDER,
    SPLITS,
    load_description,
)
from diptych.model_files import MODEL_FILE, WEIGHTS_FILE, load_model_description
from diptych.params import read_yaml
from diptych.tracking.dvc_cache import DvcCache, dvc_md5
from diptych.tracking.pipeline import LOCK_FILE, PIPELINE_FILE, read_stages


@dataclass(frozen=True, slots=True)
class Damage:
    """A file that is not what it was.

    Attributes:
        path: The file.
        what: What was expected and what was found.
        command: What restores it, for a shell in the project's main folder.
    """

    path: Path
    what: str
    command: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What a look at all files has found.

    Attributes:
        num_files: How many were hashed.
        num_bytes: Their size, together.
        damages: Those that are not what they were, in the order in which to restore them.
    """

    num_files: int
    num_bytes: int
    damages: tuple[Damage, ...]


@dataclass(frozen=True, slots=True)
class _Output:
    """An output that DVC keeps."""

    stage: str
    path: str
    md5: str


@dataclass(frozen=True, slots=True)
class _DamagedObject:
    """An object of DVC's cache that is not what its name says.

    Attributes:
        path: The object.
        what: What was expected and what was found.
        keeps: The file or folder of the project whose content it keeps.
    """

    path: Path
    what: str
    keeps: Path


def verify(root: Path) -> Verification:
    """Hash the outputs of a project's pipeline and what DVC keeps of them.

    What is not there at all is not damaged: in a fresh clone there is nothing to verify.

    Args:
        root: The project's main folder.

    Raises:
        UserError: when dvc.yaml or dvc.lock cannot be read.
    """
    if not (root / LOCK_FILE).is_file():
        return Verification(0, 0, ())
    work = _Work(root)
    for output in _outputs(root):
        damaged_objects = list(work.damaged_objects(output))
        damaged_files = list(work.damaged_files(output))
        work.note(output, damaged_objects, damaged_files)
    return Verification(work.num_files, work.num_bytes, tuple(work.damages))


class _Work:
    """One look at all files."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._cache = _cache_of(root)
        self._seen: set[Path] = set()
        self.num_files = 0
        self.num_bytes = 0
        self.damages: list[Damage] = []

    def damaged_objects(self, output: _Output) -> Iterator[_DamagedObject]:
        """Hash an output's objects; yield those that differ."""
        for md5, place in self._cache.objects(output.md5):
            path = self._cache.object_path(md5)
            if path in self._seen or not path.is_file():
                continue
            self._seen.add(path)
            found = self._hashed(path, "md5")
            wanted = md5.removesuffix(".dir")
            if found != wanted:
                what = f"md5 must be {wanted} (got {found})"
                yield _DamagedObject(path, what, Path(output.path, place))

    def damaged_files(self, output: _Output) -> Iterator[tuple[Path, str]]:
        """Hash what an output's own descriptions name; yield what differs from them."""
        expected: dict[Path, str] = {}
        for name, read in ((MODEL_FILE, _weights_in), (DESCRIPTION_FILE, _arrays_in)):
            for path in sorted((self._root / output.path).rglob(name)):
                try:
                    expected |= read(path.parent)
                except UserError as error:
                    yield path, str(error).removeprefix(f"{path}: ")
        for path, digest in expected.items():
            found = self._hashed(path, "sha256") if path.is_file() else "no file"
            if found != digest:
                yield path, f"sha256 must be {digest} (got {found})"

    def note(
        self,
        output: _Output,
        objects: Sequence[_DamagedObject],
        files: Sequence[tuple[Path, str]],
    ) -> None:
        """Note what was found damaged of an output, each with what restores it."""
        command = self._restoring(output, [one.path for one in objects], bool(files))
        for one in objects:
            self.damages.append(Damage(one.path, f"{one.what}; it keeps {one.keeps}", command))
        for path, what in files:
            self.damages.append(Damage(path, what, command))

    def _restoring(self, output: _Output, objects: Sequence[Path], has_bad_files: bool) -> str:
        """Return the command that restores an output and its objects, from what is whole of it."""
        again = ["dvc", "repro", "--force", "--single-item", output.stage]
        if objects:
            # DVC takes an object that is there for what its name says.
            removal = ["rm", "-f", *map(self._shown, objects)]
            if not has_bad_files and self._is_as_kept(output):
                again = ["dvc", "commit", "--force", output.stage]
            return f"{join(removal)} && {join(again)}"
        if not self._is_kept(output):
            return join(again)
        return f"{join(['rm', '-rf', output.path])} && {join(['dvc', 'checkout', output.path])}"

    def _is_kept(self, output: _Output) -> bool:
        """Tell whether DVC has all objects of an output."""
        objects = [self._cache.object_path(md5) for md5, _ in self._cache.objects(output.md5)]
        return all(path.is_file() for path in objects)

    def _is_as_kept(self, output: _Output) -> bool:
        """Tell whether an output's files are what dvc.lock says, whatever the cache holds."""
        path = self._root / output.path
        return path.exists() and dvc_md5(path) == output.md5

    def _hashed(self, path: Path, algorithm: str) -> str:
        self.num_files += 1
        self.num_bytes += path.stat().st_size
        if algorithm == "sha256":
            return sha256_of(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()

    def _shown(self, path: Path) -> str:
        inside = path.is_relative_to(self._root)
        return str(path.relative_to(self._root) if inside else path)


def _cache_of(root: Path) -> DvcCache:
    from dvc.exceptions import DvcException

    try:
        return DvcCache(root)
    except DvcException as error:
        raise FileError(f"{root}: must be a project of DVC ({error})") from None


def _outputs(root: Path) -> list[_Output]:
    kept = {stage.name: stage.outs for stage in read_stages(root / PIPELINE_FILE)}
    try:
        locked = read_yaml(root / LOCK_FILE)["stages"]
        return [
            _Output(stage, entry["path"], entry["md5"])
            for stage in kept
            for entry in locked.get(stage, {}).get("outs", ())
            if kept[stage].get(entry["path"])
        ]
    except (LookupError, TypeError, AttributeError):
        raise FileError(f"{root / LOCK_FILE}: must be as DVC writes it") from None


def _weights_in(folder: Path) -> dict[Path, str]:
    """Return the digest of the weights that a model.json describes."""
    description = load_model_description(folder)
    if description.get("family") != "pair":
        return {folder / WEIGHTS_FILE: str(description.get("weights_sha256"))}
    members = description.get("members")
    if not isinstance(members, dict):
        raise FileError(f"{folder / MODEL_FILE}: members: must be an object (got {members!r:.80})")
    return {folder / name / WEIGHTS_FILE: str(digest) for name, digest in members.items()}


def _arrays_in(folder: Path) -> dict[Path, str]:
    """Return the digests of the arrays that a dataset.json and a novel.json describe."""
    description = load_description(folder)
    expected = _novel_arrays_in(folder / NOVEL_FOLDER)
    for split in SPLITS:
        expected[folder / split / IMAGES_FILE] = description.split(split).images_sha256
        expected[folder / split / LABELS_FILE] = description.split(split).labels_sha256
    return expected


def _novel_arrays_in(folder: Path) -> dict[Path, str]:
    path = folder / NOVEL_FILE
    if not path.is_file():
        return {}
    try:
        sets = read_json(path)["sets"]
        return {
            folder / name / IMAGES_FILE: str(one["images_sha256"]) for name, one in sets.items()
        }
    except (LookupError, TypeError, AttributeError):
        raise FileError(f"{path}: must describe sets of novel images") from None
