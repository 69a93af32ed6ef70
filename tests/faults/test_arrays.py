"""R9: damaged images are refused before they are parsed, also when DVC's cache gives them out."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from diptych.checkpoints import load_model, save_model
from diptych.errors import UserError
from diptych.images.arrays import (
    SPLITS,
    ImageSet,
    Split,
    load_description,
    load_image_set,
    load_novel,
    save_dataset,
    save_novel,
)
from diptych.model_files import WEIGHTS_FILE
from tests.faults.tiers import trials

NUM_IMAGES: dict[Split, int] = {"train": 9, "validation": 6, "test": 6}
SHAPE = (1, 6, 5)


@pytest.fixture
def processed(tmp_path):
    source = np.random.default_rng(0)
    sets = {
        split: ImageSet(source.integers(0, 256, (num, *SHAPE), np.uint8), np.arange(num) % 3)
        for split, num in NUM_IMAGES.items()
    }
    folder = tmp_path / "processed"
    save_dataset(folder, "own", ("a", "b", "c"), sets)
    save_novel(folder, {"dark": np.zeros((4, *SHAPE), np.uint8)})
    return folder


def load_all(folder: Path) -> None:
    description = load_description(folder)
    for split in SPLITS:
        load_image_set(folder, split, description)
    load_novel(folder, description)


def is_refused(name: str, load: Callable[..., object], folder: Path) -> bool:
    """Whether a folder is refused in one line that names the file."""
    try:
        load(folder)
    except UserError as error:
        return len(str(error).splitlines()) == 1 and name in str(error)
    return False


def stock_is_refused(path: Path) -> bool:
    try:
        np.load(path)
    except Exception:
        return True
    return False


def flip(path: Path, source: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[source.randrange(len(content))] ^= 1 << source.randrange(8)
    mode = path.stat().st_mode
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(mode)


def cut(path: Path, source: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: source.randrange(len(content))])


@pytest.mark.parametrize(
    ("damage", "what"), [(flip, "flips in arrays"), (cut, "cuts in arrays")], ids=["flip", "cut"]
)
def test_damaged_arrays_are_refused_before_parsing(promise, processed, damage, what):
    load_all(processed)
    paths, source = sorted(processed.rglob("*.npy")), random.Random(0)
    assert len(paths) == 7
    num, refused, stock = trials(quick=80, full=400), 0, 0
    for number in range(num):
        path = paths[number % len(paths)]
        content = path.read_bytes()
        damage(path, source)
        refused += is_refused(str(path), load_all, processed)
        stock += stock_is_refused(path)
        path.write_bytes(content)
    promise("R9", what, num, refused, stock_tried=num, stock_survived=stock)


def dvc(folder: Path, *words: str) -> int:
    program = shutil.which("dvc", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert program is not None
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run([program, *words], cwd=folder, env=environment, capture_output=True)
    return done.returncode


def test_what_a_damaged_cache_gives_out_is_refused(promise, processed, tmp_path):
    """Objects are read-only, so DVC takes them for what their names say."""
    model = tmp_path / "model"
    for number in range(trials(quick=3, full=400)):
        weights = torch.randn(20, generator=torch.Generator().manual_seed(number))
        save_model(model / str(number), {"weight": weights}, {"family": "any"})
    assert dvc(tmp_path, "init", "--quiet", "--no-scm") == 0
    assert dvc(tmp_path, "add", "--quiet", "processed", "model") == 0

    source = random.Random(0)
    damaged = [*processed.rglob("*.npy"), *model.rglob(WEIGHTS_FILE)]
    before = {path: path.read_bytes() for path in damaged}
    objects = {
        path.read_bytes(): path
        for path in (tmp_path / ".dvc" / "cache").rglob("*")
        if path.is_file()
    }
    for content in set(before.values()):
        flip(objects[content], source)
    shutil.rmtree(processed)
    shutil.rmtree(model)
    dvc(tmp_path, "checkout", "--quiet")

    given_out = {path: path.read_bytes() for path in damaged if path.exists()}
    refused = 0
    for path, content in given_out.items():
        for other, good in before.items():
            other.write_bytes(content if other == path else good)
        if path.name == WEIGHTS_FILE:
            refused += is_refused(str(path), load_model, path.parent)
        else:
            refused += is_refused(str(path), load_all, processed)
    promise(
        "R9",
        "flips in objects of the DVC cache",
        len(damaged),
        refused + len(damaged) - len(given_out),
        stock_tried=len(damaged),
        stock_survived=len(damaged) - len(given_out),
    )
