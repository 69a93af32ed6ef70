"""What the pipeline costs beside its computations: start-up, tracking, DVC.

Everything is timed from outside, as wall time of processes that compute next to nothing.
"""

import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from benchmarks.settings import ROOT, Setting, UnavailableError
from diptych.params import read_yaml, set_values

_NUM_IDLE_REPROS = 3
_NEXT_TO_NOTHING = {
    "preprocess.num_validation": 55_000,  # leaves 5,000 to train on
    "compute.device": "cpu",
    "train_cnn.width": 2,
    "train_cnn.num_blocks": 1,
    "train_cnn.view_shift_pixels": 0.0,
    "train_vae.architecture": "article",
    "train_vae.num_latents": 2,
    "evaluate.num_importance_samples": 1,
    "generate_samples.num_samples": 100,
}
_TIMER = """\
import subprocess, sys, time
from pathlib import Path

log, *command = sys.argv[1:]
start = time.perf_counter()
code = subprocess.call([sys.executable, *command])
with open(log, "a") as file:
    file.write(f"{Path(command[0]).stem} {time.perf_counter() - start}\\n")
sys.exit(code)
"""

Tracking = Literal["on", "off"]


def measure_startup(setting: Setting) -> dict[str, float]:
    """Time imports, and every stage until it has read its parameters, which are bad.

    Raises:
        UnavailableError: when the project's stages are not here.
    """
    _require_project()
    with TemporaryDirectory(prefix="diptych-startup-") as folder:
        bad = Path(folder, "bad.yaml")
        bad.write_text(f"repetition: {setting.seed}\n", encoding="utf-8")
        stages = {
            f"{stage}_startup_seconds": _seconds_to_refuse(command, bad)
            for stage, command in _stage_commands().items()
        }
    python = _seconds([sys.executable, "-c", ""])
    imports = {
        f"import_{module}_seconds": _seconds([sys.executable, "-c", f"import {module}"]) - python
        for module in ("torch", "mlflow")
    }
    return {"python_seconds": python, **imports, **stages}


def measure_pipeline(setting: Setting) -> dict[str, float]:
    """Time every stage inside `dvc repro`, tracked and not, and a repro with nothing to do.

    Raises:
        UnavailableError: when the project or the raw images are not here.
    """
    _require_project()
    raw = setting.processed.parent / "raw"
    if not raw.is_dir():
        raise UnavailableError(f"needs the raw images, in {raw}")
    order: tuple[Tracking, Tracking] = ("on", "off") if setting.seed % 2 else ("off", "on")
    with TemporaryDirectory(prefix="diptych-overheads-") as home:
        copy = _copy_project(Path(home), setting, raw)
        copy.stage_seconds("on")  # makes the store, the outputs and the bytecode
        seconds = {tracking: copy.stage_seconds(tracking) for tracking in order}
        idle_repro, dvc = copy.idle_seconds()
    stages = {}
    for stage, tracked in seconds["on"].items():
        untracked = seconds["off"][stage]
        stages[f"{stage}_untracked_seconds"] = untracked
        stages[f"{stage}_tracking_seconds"] = tracked - untracked
    return {
        **stages,
        "dvc_seconds": dvc,
        "idle_repro_beyond_dvc_seconds": idle_repro - dvc,
    }


@dataclass(frozen=True, slots=True)
class _Copy:
    """A copy of the project with a store of its own."""

    folder: Path
    environment: Mapping[str, str]
    log: Path

    def run(self, *command: str, **variables: str) -> None:
        _run(command, self.folder, {**self.environment, **variables})

    def stage_seconds(self, tracking: Tracking) -> dict[str, float]:
        """Run the whole pipeline and return each stage's seconds."""
        self.log.unlink(missing_ok=True)
        self.run("dvc", "repro", "--force", "--quiet", DIPTYCH_TRACKING=tracking)
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return {stage: float(seconds) for stage, seconds in map(str.split, lines)}

    def idle_seconds(self) -> tuple[float, float]:
        """Return the seconds of a repro with nothing to do, and of DVC's own start."""
        repro, version = [], []
        for _ in range(_NUM_IDLE_REPROS):
            version.append(_seconds_of(lambda: self.run("dvc", "--version")))
            repro.append(_seconds_of(lambda: self.run("dvc", "repro", "--quiet")))
        return statistics.median(repro), statistics.median(version)


def _copy_project(home: Path, setting: Setting, raw: Path) -> _Copy:
    folder, log = home / "project", home / "stages.log"
    for name in _listed_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    content = deepcopy(setting.content)
    set_values(content, {**_NEXT_TO_NOTHING, "dataset.sources": [str(raw)]})
    # JSON is YAML.
    (folder / "params.yaml").write_text(json.dumps(content, indent=2), encoding="utf-8")
    copy = _Copy(folder, _environment(home, folder, _write_timer(home, log)), log)
    copy.run("git", "init", "--quiet")
    copy.run("git", "add", "--all")
    copy.run("git", "commit", "--quiet", "--message", "The project")
    return copy


def _listed_files() -> list[str]:
    """Return the files that git tracks, or would track if they were added."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def _write_timer(home: Path, log: Path) -> Path:
    """Write the `python` that stages find first on their PATH: it times the real one."""
    timer, folder = home / "timer.py", home / "bin"
    folder.mkdir()
    timer.write_text(_TIMER, encoding="utf-8")
    command = shlex.join([sys.executable, str(timer), str(log)])
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    return folder


def _environment(home: Path, folder: Path, timer: Path) -> dict[str, str]:
    """Return this environment without what would steer git, DVC, MLflow or the stages."""
    steering = ("GIT_", "DVC_", "MLFLOW_", "DIPTYCH_", "PYTHONDONTWRITEBYTECODE")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(steering)}
    names = {f"GIT_{role}_NAME": "bench" for role in ("AUTHOR", "COMMITTER")}
    addresses = {f"GIT_{role}_EMAIL": "bench@localhost" for role in ("AUTHOR", "COMMITTER")}
    path = [str(timer), str(Path(sys.executable).parent), kept.get("PATH", os.defpath)]
    return {
        **kept,
        **names,
        **addresses,
        "PATH": os.pathsep.join(path),
        "PYTHONPATH": str(folder / "src"),
        "DVC_SITE_CACHE_DIR": str(home / "dvc-site"),
        "DVC_GLOBAL_CONFIG_DIR": str(home / "dvc-global"),
        "DVC_SYSTEM_CONFIG_DIR": str(home / "dvc-system"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }


def _require_project() -> None:
    if not (ROOT / "stages").is_dir() or not (ROOT / ".git").exists():
        raise UnavailableError("needs the project's repository, with its stages")


def _stage_commands() -> dict[str, list[str]]:
    stages = read_yaml(ROOT / "dvc.yaml")["stages"]
    return {stage: shlex.split(described["cmd"])[1:] for stage, described in stages.items()}


def _seconds_to_refuse(command: list[str], params: Path) -> float:
    words = [str(params) if word == "params.yaml" else word for word in command]
    return _seconds([sys.executable, *words], expected_code=2)


def _seconds(command: Sequence[str], expected_code: int = 0) -> float:
    return _seconds_of(lambda: _run(command, ROOT, os.environ, expected_code))


def _seconds_of(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _run(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], expected_code: int = 0
) -> None:
    """Run a process that must end with this exit code; its output shows only if it does not."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != expected_code:
        raise RuntimeError(f"{shlex.join(command)}: ended with {done.returncode}\n{done.stdout}")
