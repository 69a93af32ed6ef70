"""What an execution's folder holds, taken while it is there.

An experiment's own folder is deleted as soon as its last stage has run, and the user's may belong
to the next execution by the time this one is looked back on. What DVC's cache keeps is not taken.
"""

import io
import shutil
import subprocess
import threading
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from diptych.files import folder_written_whole
from diptych.params import ParamsError
from diptych.tracking.pipeline import LOCK_FILE, PARAMS_FILE, PIPELINE_FILE, read_stages


class Snapshot:
    """Follows the folder of a pipeline execution from stage to stage."""

    def __init__(self, workspace: Path, copy: Path) -> None:
        """Follow a folder.

        Args:
            workspace: The folder in which DVC runs the stages.
            copy: Where to have what is needed of it, under the same relative paths.
        """
        self.workspace = workspace
        """The folder that is followed."""
        self.copy = copy
        """The folder that the copy is in."""
        self._version: tuple[int, int, int] | None = None
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Take what has changed if a stage has ended since the last time."""
        with self._lock, suppress(OSError, ParamsError):
            version = _version_of(self.workspace / LOCK_FILE)
            if not self.copy.exists():
                with folder_written_whole(self.copy) as folder:
                    copy_pipeline(self.workspace, folder)
            elif version != self._version:
                take_results(self.copy, partial(_content_of, self.workspace))
            self._version = version

    def finish(self, root: Path, environment: Mapping[str, str]) -> None:
        """Take what the execution has left: the experiment's commit, or else what is in its folder.

        A folder of its own is deleted behind the last stage, and may have been before the first
        look at it.

        Args:
            root: The project's main folder.
            environment: The environment variables of a stage, which name the experiment.
        """
        self.refresh()
        with self._lock, suppress(OSError, ParamsError):
            if not self.workspace.exists() or not self.workspace.samefile(root):
                _take_commit(root, _experiment_ref(environment), self.copy)


def copy_pipeline(workspace: Path, folder: Path) -> None:
    """Copy the pipeline's own files, params, code, and the outputs that git keeps, as far as there.

    Args:
        workspace: Where they are.
        folder: Where to, under the same relative paths.

    Raises:
        ParamsError: when dvc.yaml cannot be read.
        OSError: when a file cannot be copied.
    """
    stages = read_stages(workspace / PIPELINE_FILE)
    cached = [out for stage in stages for out, is_cached in stage.outs.items() if is_cached]
    paths = {PIPELINE_FILE, LOCK_FILE, PARAMS_FILE}
    for stage in stages:
        paths |= {*stage.deps, *stage.outs}
    for path in sorted(paths):
        if not any(Path(path).is_relative_to(out) for out in cached):
            _copy(workspace / path, folder / path)


def take_results(folder: Path, content_of: Callable[[str], bytes | None]) -> None:
    """Replace in a copy what stages change: dvc.lock and the outputs that git keeps.

    The rest stays as it was when the execution began: a folder may be in the middle of being
    deleted, which no directory tells, while a file is there or not.

    Args:
        folder: The copy.
        content_of: Gives the bytes of a file by its relative path; None if there is none.

    Raises:
        ParamsError: when the copy has no dvc.yaml.
        OSError: when a file cannot be read or written.
    """
    stages = read_stages(folder / PIPELINE_FILE)
    kept = [out for stage in stages for out, is_cached in stage.outs.items() if not is_cached]
    for path in (LOCK_FILE, *kept):
        content = content_of(path)
        if content is not None:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)


def _content_of(workspace: Path, path: str) -> bytes | None:
    with suppress(FileNotFoundError):
        return (workspace / path).read_bytes()
    return None


def _take_commit(root: Path, ref: str, copy: Path) -> None:
    """Replace a copy by one of a commit, if there is that commit."""
    command = ["git", "-C", str(root), "archive", "--format=zip", ref]
    archive = subprocess.run(command, capture_output=True, check=False)
    if archive.returncode != 0:
        return
    with TemporaryDirectory(prefix="diptych-") as workspace:
        with zipfile.ZipFile(io.BytesIO(archive.stdout)) as members:
            members.extractall(workspace)
        with folder_written_whole(copy) as folder:
            copy_pipeline(Path(workspace), folder)


def _experiment_ref(environment: Mapping[str, str]) -> str:
    """Return what DVC calls the commit of an experiment; there is none without a name."""
    baseline = environment.get("DVC_EXP_BASELINE_REV", "")
    return f"refs/exps/{baseline[:2]}/{baseline[2:]}/{environment.get('DVC_EXP_NAME', '')}"


def _version_of(lock: Path) -> tuple[int, int, int] | None:
    """Return what changes with a file; None if there is none."""
    with suppress(FileNotFoundError):
        found = lock.stat()
        return found.st_ino, found.st_mtime_ns, found.st_size
    return None


def _copy(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"))
    elif source.is_file():
        shutil.copyfile(source, place)
