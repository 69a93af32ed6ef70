"""What tests of stages share: small projects, run with the paths of dvc.yaml."""

import importlib.util
import json
import shlex
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diptych.errors import UserError
from diptych.images.arrays import ImageSet, Split, save_dataset, save_novel
from diptych.params import read_yaml

ROOT = Path(__file__).parents[2]
STAGES: dict[str, dict[str, Any]] = read_yaml(ROOT / "dvc.yaml")["stages"]
PROCESSED = Path("data", "processed")
NUM_IMAGES: dict[Split, int] = {"train": 64, "validation": 24, "test": 30}

Changes = Mapping[str, Mapping[str, Any]]

SMALL: Changes = {
    "compute": {"device": "cpu", "precision": "float32", "num_threads": 1},
    "train_cnn": {"width": 2, "num_blocks": 1, "num_epochs": 2, "batch_size": 16},
    "train_vae": {
        "num_latents": 3,
        "width": 2,
        "num_hidden": 8,
        "num_epochs": 2,
        "batch_size": 16,
    },
    "evaluate": {"num_importance_samples": 2, "num_mistakes": 4, "num_reconstructions": 3},
    "generate_samples": {
        "num_samples": 12,
        "num_shown": 6,
        "manifold_side": 3,
        "num_interpolations": 2,
        "num_interpolation_steps": 3,
        "num_per_class": 2,
    },
}
ARTICLE: Changes = {
    "train_cnn": {"architecture": "article"},
    "train_vae": {"architecture": "article", "num_latents": 2, "binarization": "static"},
}


@pytest.fixture(autouse=True)
def _tracking_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIPTYCH_TRACKING", "off")


@pytest.fixture(scope="session")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after its last stage: grey images, this project's architectures. Not to change."""
    return _finished(tmp_path_factory.mktemp("grey"), (1, 12, 12), {})


@pytest.fixture(scope="session")
def colour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after its last stage: colour images, the article's architectures. Not to change."""
    return _finished(tmp_path_factory.mktemp("colour"), (3, 20, 24), ARTICLE)


@pytest.fixture(params=["grey", "colour"])
def finished(request: pytest.FixtureRequest) -> Path:
    """Each of the two projects. Not to change."""
    folder: Path = request.getfixturevalue(request.param)
    return folder


@pytest.fixture
def project(grey: Path, tmp_path: Path) -> Path:
    """A copy of the grey project."""
    return copy_of(grey, tmp_path)


def _finished(folder: Path, image_shape: tuple[int, int, int], changes: Changes) -> Path:
    write_params(folder, changes)
    write_images(folder, image_shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIPTYCH_TRACKING", "off")
        for stage in ("train_cnn", "train_vae", "evaluate", "generate_samples"):
            run_stage(folder, stage)
    return folder


def write_params(folder: Path, changes: Changes) -> None:
    """The params.yaml that ships, made quick, and changed."""
    params = read_yaml(ROOT / "params.yaml")
    for section, values in params.items():
        values |= {**SMALL.get(section, {}), **changes.get(section, {})}
    (folder / "params.yaml").write_text(json.dumps(params), encoding="utf-8")


def write_images(
    folder: Path, image_shape: tuple[int, int, int], class_names: tuple[str, ...] = ("a", "b", "c")
) -> None:
    """Processed images of noise, the class told by the position of a bright row."""
    random = np.random.default_rng(0)

    def image_set(num_images: int) -> ImageSet:
        images = random.integers(0, 100, (num_images, *image_shape), np.uint8)
        labels = np.arange(num_images) % len(class_names)
        images[np.arange(num_images), :, 2 * labels + 1] = 255
        return ImageSet(images, labels)

    sets = {split: image_set(num_images) for split, num_images in NUM_IMAGES.items()}
    save_dataset(folder / PROCESSED, "stripes", class_names, sets)
    save_novel(folder / PROCESSED, {"dark": np.zeros((5, *image_shape), np.uint8)})


def copy_of(folder: Path, parent: Path) -> Path:
    return shutil.copytree(folder, parent / "copy")


def run_stage(folder: Path, stage: str) -> None:
    """Call a stage's `main` in a folder, with the paths of dvc.yaml."""
    words = shlex.split(STAGES[stage]["cmd"])
    paths = {
        option.removeprefix("--"): Path(path)
        for option, path in zip(words[2::2], words[3::2], strict=True)
    }
    spec = importlib.util.spec_from_file_location(stage, ROOT / words[1])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        module.main(**paths)


def contents_of(folder: Path) -> dict[str, bytes]:
    """Every file, by its path in the folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def check_rerun(finished: Path, parent: Path, stage: str, *unread: Path) -> None:
    """Check that a stage makes the same bytes again in another folder, and nothing else.

    Args:
        finished: A project after its last stage.
        parent: Of the copy that is made.
        stage: What is run there, after its outputs are gone.
        unread: Folders that it must do without.
    """
    again = copy_of(finished, parent)
    for path in (*outputs_of(stage), *unread):
        shutil.rmtree(again / path) if (again / path).is_dir() else (again / path).unlink()
    run_stage(again, stage)
    missing = tuple(f"{path.as_posix()}/" for path in unread)
    made = contents_of(again)
    assert made == {
        path: content
        for path, content in contents_of(finished).items()
        if not path.startswith(missing or "/")
    }
    assert [path for path, content in made.items() if bytes(again) in content] == []


def outputs_of(stage: str) -> list[Path]:
    entries = [
        entry for key in ("outs", "metrics", "plots") for entry in STAGES[stage].get(key, [])
    ]
    return [Path(*entry) for entry in (e if isinstance(e, dict) else [e] for e in entries)]


def refusal(folder: Path, stage: str) -> str:
    """The one line with which a stage refuses its input; it leaves every file as it was."""
    before = contents_of(folder)
    with pytest.raises(UserError) as caught:
        run_stage(folder, stage)
    assert contents_of(folder) == before
    (line,) = str(caught.value).splitlines()
    return line


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _reshape(path: Path) -> None:
    if path.suffix == ".npy":
        np.save(path, np.load(path)[:-1])
    else:
        path.write_text("[]")


DAMAGES: Mapping[str, Callable[[Path], None]] = {
    "missing": Path.unlink,
    "cut": _cut,
    "a folder": _replace_by_folder,
    "of another form": _reshape,
}
each_damage = pytest.mark.parametrize("damage", DAMAGES)
