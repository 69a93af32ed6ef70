import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from diptych.errors import UserError
from diptych.images.arrays import SPLITS, load_description, load_image_set, load_novel
from diptych.images.datasets import Dataset, DatasetFile
from diptych.images.idx import write_idx
from diptych.images.integrity import DataError

ROOT = Path(__file__).parents[2]
STAGE = ROOT / "stages" / "preprocess.py"

TRAIN = np.random.default_rng(0).integers(0, 256, (30, 4, 5), np.uint8)
TEST = np.random.default_rng(1).integers(0, 256, (6, 4, 5), np.uint8)
CONTENTS = {
    "a": write_idx(TRAIN),
    "b": write_idx((np.arange(30) % 3).astype(np.uint8)),
    "c": write_idx(TEST),
    "d": write_idx((np.arange(6) % 3).astype(np.uint8)),
}


def published(dataset_name: str = "mnist") -> Dataset:
    files = [
        DatasetFile(
            dataset_name, name, len(content), idx_sha256=hashlib.sha256(content).hexdigest()
        )
        for name, content in CONTENTS.items()
    ]
    return Dataset(dataset_name, ("x", "y", "z"), (), *files)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The stage beside its inputs: a small data set's raw folder and params.yaml."""
    monkeypatch.chdir(tmp_path)
    Path("raw").mkdir()
    for name, content in CONTENTS.items():
        Path("raw", name).write_bytes(content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENTS.items()}
    Path("raw", "raw.json").write_text(json.dumps({"dataset": "mnist", "sha256": digests}))
    write_params(num_validation=6, seed=0)
    spec = importlib.util.spec_from_file_location("preprocess", STAGE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    vars(module)["DATASETS"] = {"mnist": published(), "kmnist": published("kmnist")}
    return module


def write_params(num_validation: object, seed: object, novel: str = "none") -> None:
    Path("params.yaml").write_text(
        f"dataset: {{name: mnist, novel: {novel}, sources: [mirrors]}}\n"
        f"preprocess: {{num_validation: {num_validation}, seed: {seed}}}\n"
    )


def run(stage: ModuleType, processed: str = "processed") -> Path:
    stage.main(Path("params.yaml"), Path("raw"), Path(processed))
    return Path(processed)


def test_the_training_file_is_split_and_the_test_file_kept(stage):
    processed = run(stage)
    description = load_description(processed)
    assert (description.name, description.class_names) == ("mnist", ("x", "y", "z"))
    assert description.image_shape == (1, 4, 5)
    train, validation, test = (load_image_set(processed, split, description) for split in SPLITS)
    assert (len(train), len(validation), len(test)) == (24, 6, 6)
    assert np.bincount(validation.labels).tolist() == [2, 2, 2]
    assert np.array_equal(test.images[:, 0], TEST)
    assert np.array_equal(test.labels, np.arange(6) % 3)
    known = {image.tobytes(): index % 3 for index, image in enumerate(TRAIN)}
    for image_set in (train, validation):
        for image, label in zip(image_set.images, image_set.labels, strict=True):
            assert known.pop(image.tobytes()) == label
    assert not known, "every training image is on exactly one side"


def test_equal_inputs_give_equal_bytes_and_the_seed_another_split(stage):
    first, again = run(stage, "first"), run(stage, "again")
    for path in first.rglob("*.*"):
        assert path.read_bytes() == (again / path.relative_to(first)).read_bytes()
    digest = load_description(first).digest
    write_params(num_validation=6, seed=1)
    assert load_description(run(stage, "other")).digest != digest


def test_a_novel_data_set_stands_apart_and_changes_nothing_else(stage):
    plain = run(stage, "plain")
    assert load_novel(plain, load_description(plain)) == {}
    write_params(num_validation=6, seed=0, novel="kmnist")
    with pytest.raises(UserError, match=r"^raw/novel/raw.json: cannot be read "):
        run(stage, "other")
    Path("raw", "novel").mkdir()
    digests = {name: hashlib.sha256(CONTENTS[name]).hexdigest() for name in "cd"}
    for name in digests:
        Path("raw", "novel", name).write_bytes(CONTENTS[name])
    manifest = json.dumps({"dataset": "kmnist", "sha256": digests})
    Path("raw", "novel", "raw.json").write_text(manifest)
    other = run(stage, "other")
    (images,) = load_novel(other, load_description(other)).values()
    assert np.array_equal(images[:, 0], TEST)
    for path in plain.rglob("*.*"):
        if path.name != "novel.json":
            assert path.read_bytes() == (other / path.relative_to(plain)).read_bytes()


@pytest.mark.parametrize("name", CONTENTS)
def test_a_damaged_raw_file_leaves_the_old_output_as_it_was(stage, name):
    digest = load_description(run(stage)).digest
    path = Path("raw", name)
    path.write_bytes(path.read_bytes()[:-1] + b"\xfe")
    with pytest.raises(
        DataError, match=f"^raw/{name}: sha256 must be [0-9a-f]{{64}} .got [0-9a-f]"
    ):
        run(stage)
    assert load_description(Path("processed")).digest == digest
    assert sorted(path.name for path in Path().iterdir()) == ["params.yaml", "processed", "raw"]


@pytest.mark.parametrize(
    ("num_validation", "seed", "message"),
    [
        (0, 0, "params.yaml: preprocess.num_validation: must be >= 1 (got 0)"),
        (1, 0, "preprocess.num_validation: must leave each class a training and a validation"),
        (30, 0, "preprocess.num_validation: must be < 30"),
        (6, -1, "params.yaml: preprocess.seed: must be >= 0 (got -1)"),
        (6, "x", "params.yaml: preprocess.seed: must be a whole number (got 'x')"),
    ],
)
def test_bad_params_end_the_stage_with_one_line(
    stage, num_validation, seed, message, capsys, monkeypatch
):
    write_params(num_validation, seed)
    options = {"--params": "params.yaml", "--raw": "raw", "--processed": "processed"}
    arguments = [word for option in options.items() for word in option]
    monkeypatch.setattr(sys, "argv", ["preprocess.py", *arguments])
    with pytest.raises(SystemExit, match="2"):
        stage.run_stage(stage.main)
    error = capsys.readouterr().err
    assert error.startswith(f"preprocess: {message}")
    assert error.count("\n") == 1
    assert not Path("processed").exists()


def test_the_command_of_the_pipeline_ends_with_one_line_and_code_2(tmp_path):
    command = [sys.executable, str(STAGE), "--params", str(ROOT / "params.yaml")]
    command += ["--raw", "raw", "--processed", "processed"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    expected = "preprocess: raw/raw.json: cannot be read (No such file or directory)"
    assert done.stderr == f"{expected}\n"
