"""Small projects in which real `dvc repro` processes run, get signals, and are started again."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest

from diptych.params import read_yaml
from tests.faults.small_mnist import NUM_VALIDATION, small_dataset
from tests.faults.waiting import wait_for_recorders, wait_until
from tests.stages.conftest import ROOT, contents_of, write_images, write_params

REPRO = ("diptych", "repro")
"""What `make repro` runs."""

Target = Literal["dvc", "stage", "all"]
"""Who gets a signal: one process, or all of the terminal's group, as Ctrl-C gives it."""

_STEERING = ("GIT_", "DVC_", "MLFLOW_", "DIPTYCH_")
_PERSON = {
    f"GIT_{role}_{field}": "tester@localhost"
    for role in ("AUTHOR", "COMMITTER")
    for field in ("NAME", "EMAIL")
}


class Execution:
    """A command that runs in a process group of its own, as a terminal starts it.

    Args:
        command: With its arguments.
        folder: The project.
        environment: All of it.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> None:
        self._folder = folder
        self._log = folder.with_name(f"{folder.name}-{time.monotonic_ns()}.log")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # What a shell starts in the background ignores Ctrl-C, and its children too.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    @property
    def pid(self) -> int:
        """DVC's number: the command becomes it."""
        return self._process.pid

    @property
    def output(self) -> str:
        """What it has printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def is_running(self) -> bool:
        """Whether DVC runs."""
        return self._process.poll() is None

    def send(self, number: int, target: Target) -> bool:
        """Send a signal, to a stage only if one runs; tell whether anybody was there to get it."""
        stages = self._stages()
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if target == "dvc":
                os.kill(self.pid, number)
            elif target == "all":
                os.killpg(self.pid, number)
            else:
                for stage in stages:
                    stage.send_signal(number)
            return bool(stages) or target != "stage"
        return False

    def training(self) -> psutil.Process:
        """Wait until a training has begun, and return its process."""
        locks = self._folder / ".diptych" / "checkpoints" / "models"

        def find() -> psutil.Process | None:
            assert self.is_running, self.output
            writers = {lock.read_text() for lock in locks.glob("*.lock")}
            return next((one for one in self._stages() if str(one.pid) in writers), None)

        found = wait_until(find, seconds=120)
        assert found is not None, self.output
        return found

    def _stages(self) -> list[psutil.Process]:
        """Its own stages, without the orphan of an earlier execution."""
        return [one for one in stages_in(self._folder) if _group_of(one) == self.pid]

    def ends_within(self, seconds: float) -> bool:
        """Wait for DVC's end; tell whether it came in time."""
        return bool(wait_until(lambda: not self.is_running, seconds))

    def leaves_no_stage_within(self, seconds: float) -> bool:
        """Wait for the end of all stages in the project; tell whether it came in time."""
        return bool(wait_until(lambda: not stages_in(self._folder), seconds))

    def end(self, seconds: float = 200.0) -> int:
        """Wait for DVC's end; return its exit code, negative after a signal."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
            pytest.fail(f"goes on for ever\n{self.output}")


@dataclass(frozen=True, slots=True)
class PipelineProject:
    """A project under git, in which commands run as in an activated environment."""

    folder: Path
    environment: Mapping[str, str]

    def start(self, *command: str, **variables: str) -> Execution:
        """Start a command."""
        return Execution(command, self.folder, {**self.environment, **variables})

    def run(self, *command: str, **variables: str) -> tuple[int, str]:
        """Return how a command ends and what it prints."""
        execution = self.start(*command, **variables)
        return execution.end(), execution.output

    def copy(self, folder: Path) -> "PipelineProject":
        """Return an equal project elsewhere, with a DVC state of its own."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return PipelineProject(folder, {**self.environment, **_places(folder)})

    def outputs(self) -> dict[str, bytes]:
        """Return every file that the stages have made, and dvc.lock."""
        made = ("models/", "metrics/", "plots/", "evaluation/", "samples/", "dvc.lock", "out")
        return {
            path: content
            for path, content in contents_of(self.folder).items()
            if path.startswith(made) and "/." not in path
        }

    def statuses(self) -> list[str]:
        """Return the status of every run in the store, once all is recorded."""
        return statuses_in(self.folder)


def pipeline_project(
    folder: Path, stages: Sequence[str], changes: Mapping[str, Mapping[str, Any]]
) -> PipelineProject:
    """Make a project with some stages of the pipeline, over a few images.

    With the stage that downloads these are a folder's beside the project, which its code takes for
    MNIST; else they are processed already.
    """
    for name in ("src", "stages"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    if "download" in stages:
        images = small_dataset("mnist", seed=0)
        source = images.write(folder.with_name(f"{folder.name}-source"))
        with (folder / "src" / "diptych" / "images" / "datasets.py").open("a") as code:
            code.write(images.code())
        changes = {
            **changes,
            "dataset": {"sources": [str(source)]},
            "preprocess": {"num_validation": NUM_VALIDATION},
        }
    else:
        write_images(folder, (1, 12, 12))
    write_params(folder, changes)
    every = read_yaml(ROOT / "dvc.yaml")["stages"]
    return dvc_project(folder, {name: every[name] for name in stages})


def dvc_project(folder: Path, stages: Mapping[str, Any]) -> PipelineProject:
    """Make a DVC project of stages as dvc.yaml would hold them."""
    (folder / ".dvc").mkdir(parents=True)
    for name in (".dvc/config", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "dvc.yaml").write_text(json.dumps({"stages": stages}), encoding="utf-8")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_STEERING)}
    environment = {
        **kept,
        **_PERSON,
        **_places(folder),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "DIPTYCH_TRACKING": "off",
    }
    project = PipelineProject(folder, environment)
    for command in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "--message", "-")):
        code, output = project.run("git", *command)
        assert code == 0, output
    return project


def _places(folder: Path) -> dict[str, str]:
    names = {"SITE_CACHE": "site", "GLOBAL_CONFIG": "global", "SYSTEM_CONFIG": "system"}
    places = {f"DVC_{key}_DIR": str(folder.parent / f"dvc-{name}") for key, name in names.items()}
    # Not so many threads that they starve what is tested.
    return {**places, "PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1"}


def statuses_in(folder: Path) -> list[str]:
    """Return the status of every run in a project's own store, once all is recorded."""
    wait_for_recorders(folder)
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        return [status for (status,) in database.execute("SELECT status FROM runs")]


def stages_in(folder: Path) -> list[psutil.Process]:
    """Return the stages that run in a project, also those whose DVC is gone."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()[1:2]
            if words and words[0].startswith("stages/") and process.cwd() == str(folder):
                found.append(process)
    return found


def _group_of(process: psutil.Process) -> int | None:
    with suppress(ProcessLookupError):
        return os.getpgid(process.pid)
    return None
