"""Small projects under git, in which commands run as somebody and record in a store."""

import json
import shutil
import subprocess
import sys
import time
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from diptych.params import read_yaml
from diptych.tracking.mlflow_tracker import JOURNALS_FOLDER
from diptych.tracking.process import is_recorder_alive
from tests.stages.conftest import Changes, write_images, write_params

from .conftest import ROOT, Account, Settings, TeamServer, clean_environment

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Two passes over noise make no model that the shipped policy would promote.
LENIENT: Changes = {
    "promotion": {
        "min_cnn_accuracy": 0.0,
        "max_cnn_ece": 1.0,
        "max_cnn_nll_nats": 100.0,
        "max_vae_nll_nats": 1000.0,
        "min_vae_active_units": 0,
        "max_pair_abstention_share": 1.0,
        "min_pair_novelty_auroc": 0.0,
        "min_pair_novel_abstention_share": 0.0,
        "min_pair_rotated_auroc": 0.0,
    }
}

# The first two need the real data set; what the last one tells goes the way of evaluate's.
LEFT_OUT = ("download", "preprocess", "generate_samples")


def make_project(folder: Path, changes: Changes = LENIENT) -> Path:
    """A copy of this project's code under git, with small parameters, changed, and images."""
    for name in ("src", "stages", "presets"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.tmp")
        )
    for name in (".gitignore", ".dvcignore", ".dvc/config", "data/.gitignore"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    pipeline = read_yaml(ROOT / "dvc.yaml")
    for stage in LEFT_OUT:
        del pipeline["stages"][stage]
    (folder / "dvc.yaml").write_text(json.dumps(pipeline), encoding="utf-8")
    write_params(folder, changes)
    write_images(folder, (1, 12, 12))
    git(folder, "init", "--quiet")
    git(folder, "add", "--all", "--force")  # the images too, as no stage makes them
    git(folder, "commit", "--quiet", "--message", "Start")
    return folder


def git(folder: Path, *arguments: str) -> str:
    """Return what git prints in the project."""
    done = run_as(folder, {}, "git", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def run_as(folder: Path, login: Settings, *command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in the project as somebody, and keep what it prints."""
    return subprocess.run(
        command,
        cwd=folder,
        env=environment_of(folder) | login,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,  # of three stages and more, on a busy machine
    )


def repro(folder: Path, login: Settings, *arguments: str) -> str:
    """Return what `dvc repro` prints; its stages' recorder has done its work by then."""
    done = run_as(folder, login, "dvc", "repro", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    deadline = time.monotonic() + 120
    while any(map(is_recorder_alive, (folder / JOURNALS_FOLDER).glob("*"))):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return done.stdout + done.stderr


def environment_of(folder: Path) -> Settings:
    kept = clean_environment()
    home = folder.parent
    person = {f"GIT_{role}_NAME": "Ann" for role in ("AUTHOR", "COMMITTER")}
    address = {f"GIT_{role}_EMAIL": "ann@localhost" for role in ("AUTHOR", "COMMITTER")}
    return {
        **(kept | person | address),
        "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}",
        "PYTHONPATH": str(folder / "src"),
        "OMP_NUM_THREADS": "1",
        **{f"DVC_{kind}_DIR": str(home / kind) for kind in ("SITE_CACHE", "GLOBAL_CONFIG")},
        "DVC_SYSTEM_CONFIG_DIR": str(home / "SYSTEM_CONFIG"),
    }


def ask(address: str, images: np.ndarray) -> list[dict[str, Any]]:
    """Return a server's answers to uint8 images, over HTTP."""
    body = json.dumps({"inputs": images.tolist()}).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310  # loopback
        answers: list[dict[str, Any]] = json.load(response)["predictions"]
    return answers


@contextmanager
def logged_in(server: TeamServer, account: Account) -> "Iterator[MlflowClient]":
    """Give MLflow's client, which finds address and login in the environment."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of mlflow's own imports
        import mlflow.pyfunc

        for key, value in server.environment(account).items():
            patch.setenv(key, value)
        yield mlflow.MlflowClient(tracking_uri=server.uri)
