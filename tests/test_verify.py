"""Whatever byte is wrong is found, and the command that is named for it makes it right."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from diptych.images.arrays import ImageSet, Split, save_dataset, save_novel
from diptych.verify import verify
from tests.faults.commands import end_of_diptych

MAKE = """
import json, hashlib
from pathlib import Path
from diptych.model_files import sealed
content = b"weights" * 9
sha256 = hashlib.sha256(content).hexdigest()
for family in ("cnn", "pair/cnn"):
    folder = Path("models") / family
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.safetensors").write_bytes(content)
    description = sealed({"family": "cnn", "weights_sha256": sha256})
    (folder / "model.json").write_text(json.dumps(description))
pair = sealed({"family": "pair", "members": {"cnn": sha256}, "weights_sha256": ""})
Path("models/pair/model.json").write_text(json.dumps(pair))
"""
PIPELINE = """
stages:
  data:
    cmd: cp -r source processed
    outs: [processed]
  train:
    cmd: python make.py
    outs: [models/cnn, models/pair]
    metrics: [{metrics.json: {cache: false}}]
"""


def dvc(folder: Path, *words: str) -> None:
    run(folder, " ".join(["dvc", *words]))


def run(folder: Path, command: str) -> None:
    """Run a command as a user would, with the environment's programs."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1"}
    subprocess.run(command, shell=True, check=True, cwd=folder, env=environment, timeout=100)  # noqa: S602


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "project"
    source = np.random.default_rng(0)
    sets: dict[Split, ImageSet] = {
        split: ImageSet(source.integers(0, 256, (6, 1, 5, 4), np.uint8), np.arange(6) % 3)
        for split in ("train", "validation", "test")
    }
    save_dataset(folder / "source", "own", ("a", "b", "c"), sets)
    save_novel(folder / "source", {"dark": np.zeros((4, 1, 5, 4), np.uint8)})
    (folder / "make.py").write_text(f"{MAKE}\nPath('metrics.json').write_text('{{}}')\n")
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "params.yaml").write_text("{}")
    dvc(folder, "init", "--quiet", "--no-scm")
    dvc(folder, "repro", "--quiet")
    return folder


@pytest.fixture
def project(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "copy", symlinks=True)


def flip(path: Path) -> None:
    """Change a bit, and nothing that tells DVC of it."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[random.Random(str(path.name)).randrange(len(content))] ^= 4
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_whole_project_is_found_whole(project: Path) -> None:
    found = verify(project)
    files = list((project / "processed").rglob("*.npy"))
    assert found.damages == ()
    # Arrays and weights; one object for each content, and for each of three folders.
    num_objects = sum(path.is_file() for path in (project / ".dvc/cache/files").rglob("*"))
    assert found.num_files == len(files) + 2 + num_objects
    assert found.num_bytes > 0


def test_where_nothing_was_made_nothing_is_damaged(tmp_path: Path, whole: Path) -> None:
    fresh = tmp_path / "fresh"
    keep = shutil.ignore_patterns("cache", "processed", "models")
    shutil.copytree(whole, fresh, ignore=keep)
    assert verify(fresh).damages == ()
    (fresh / "dvc.lock").write_text("stages: {train: [1]}")
    assert end_of_diptych(fresh, "verify").is_refusal("dvc.lock")
    shutil.rmtree(fresh / ".dvc")
    assert end_of_diptych(fresh, "verify").is_refusal("must be a project of DVC")
    (fresh / "dvc.lock").unlink()
    assert verify(fresh).num_files == 0


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("models/cnn/weights.safetensors", "dvc checkout"),
        ("models/pair/cnn/weights.safetensors", "dvc checkout"),
        ("processed/test/labels.npy", "dvc checkout"),
        ("processed/novel/dark/images.npy", "dvc checkout"),
    ],
)
def test_a_damaged_file_is_restored_from_the_cache(project: Path, name: str, program: str) -> None:
    flip(project / name)
    (damage,) = verify(project).damages
    assert damage.path == project / name
    assert damage.what.startswith("sha256 must be ")
    assert program in damage.command
    run(project, damage.command)
    assert verify(project).damages == ()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("processed/dataset.json", "{"),
        ("models/cnn/model.json", "{"),
        ("models/cnn/model.json", '{"family": "cnn"}'),
        ("models/pair/model.json", '{"family": "pair", "members": {}}'),
    ],
)
def test_a_description_that_was_changed_is_damaged(project: Path, name: str, content: str) -> None:
    (project / name).write_text(content)
    (damage,) = verify(project).damages
    assert damage.path == project / name
    run(project, damage.command)
    assert verify(project).damages == ()


def object_of(project: Path, path: Path) -> Path:
    content = path.read_bytes()
    objects = [one for one in (project / ".dvc/cache/files").rglob("*") if one.is_file()]
    (found,) = [one for one in objects if one.read_bytes() == content]
    return found


@pytest.mark.parametrize("is_file_too", [False, True])
@pytest.mark.parametrize("name", ["processed/train/images.npy", "models/cnn/weights.safetensors"])
def test_a_damaged_object_is_made_again(project: Path, name: str, is_file_too: bool) -> None:
    path = object_of(project, project / name)
    flip(path)
    if is_file_too:
        flip(project / name)
    first, *others = verify(project).damages
    assert first.path == path
    assert name in first.what
    assert [one.path for one in others] == [project / name] * is_file_too
    assert ("dvc repro" if is_file_too else "dvc commit") in first.command
    run(project, first.command)
    assert verify(project).damages == ()
    shutil.rmtree(project / name.split("/")[0])
    dvc(project, "checkout", "--quiet")
    assert verify(project).damages == ()


def test_a_damaged_list_of_a_folder_is_made_again(project: Path) -> None:
    (path, *_) = sorted((project / ".dvc/cache/files").rglob("*.dir"))
    flip(path)
    (damage,) = verify(project).damages
    assert damage.path == path
    run(project, damage.command)
    assert verify(project).damages == ()


def test_the_command_prints_a_line_for_each_and_the_sum(project: Path) -> None:
    ended = end_of_diptych(project, "verify")
    assert (ended.code, ended.stdout.count("\n")) == (0, 1)
    assert ended.stdout.endswith(": 0 damaged\n")
    flip(project / "models/cnn/weights.safetensors")
    ended = end_of_diptych(project, "verify")
    assert (ended.code, ended.stdout.count("\n")) == (1, 2)
    ended = end_of_diptych(project, "verify", "--json")
    assert ended.code == 1
    (damage,) = json.loads(ended.stdout)["damages"]
    assert damage["path"] == str(project / "models/cnn/weights.safetensors")
