"""What MLflow loads: the models' own answers, and no code with them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from diptych.tracking.packing import pack_model
from diptych.tracking.served import load_served
from tests.tracking.served_pairs import NAMES, SHAPE, digits, save_small_pair

pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `cnn`, `vae` and `pair`. Not to change."""
    return save_small_pair(tmp_path_factory.mktemp("models")).parent


@pytest.fixture(scope="module")
def packed(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same three, packed. Not to change."""
    folder = tmp_path_factory.mktemp("packed")
    for family in ("cnn", "vae", "pair"):
        pack_model(folder / family, models / family, SHAPE, {})
    return folder


@pytest.mark.parametrize("family", ["cnn", "vae", "pair"])
def test_a_packed_model_answers_as_the_original(models: Path, packed: Path, family: str) -> None:
    import mlflow.pyfunc

    loaded = mlflow.pyfunc.load_model(str(packed / family))
    original = load_served(models / family)
    for num_images in (0, 1, 7, 300):
        answers, expected = (model.predict(digits(num_images)) for model in (loaded, original))
        assert len(answers) == num_images
        np.testing.assert_array_equal(answers, expected)
    example = loaded.input_example
    assert (example.dtype, example.shape) == (np.dtype(np.uint8), (2, *SHAPE))
    assert len(loaded.predict(example)) == 2


def test_a_pairs_answers_have_a_row_per_image_with_named_columns(packed: Path) -> None:
    import mlflow.pyfunc

    loaded = mlflow.pyfunc.load_model(str(packed / "pair"))
    noise = np.random.default_rng(0).integers(0, 256, (20, *SHAPE), np.uint8)
    answers = loaded.predict(np.concatenate([digits(180), noise]))
    probabilities = [f"probability_{name}" for name in NAMES]
    columns = ["class", "confidence", "novelty_p_value", "decision", *probabilities]
    assert list(answers.columns) == columns
    assert loaded.metadata.get_output_schema().input_names() == columns
    np.testing.assert_allclose(answers[probabilities].sum(axis="columns"), 1, rtol=1e-6)
    best = answers[probabilities].idxmax(axis="columns")
    assert best.eq("probability_" + answers["class"]).all()
    assert answers["confidence"].eq(answers[probabilities].max(axis="columns")).all()
    assert answers["decision"].eq("abstain").eq(answers["novelty_p_value"] <= 0.02).all()
    assert (answers["decision"][:180] == "accept").mean() > 0.8
    assert (answers["decision"][180:] == "abstain").any()
    assert answers["class"].nunique() > 1


def test_one_request_of_the_schema_is_what_the_model_takes(packed: Path) -> None:
    import mlflow.pyfunc

    schema = mlflow.pyfunc.load_model(str(packed / "pair")).metadata.get_input_schema()
    (tensor,) = schema.inputs
    assert (tensor.type, tensor.shape) == (np.dtype(np.uint8), (-1, *SHAPE))
    request = json.loads((packed / "pair" / "serving_input_example.json").read_text())
    assert np.array(request["inputs"]).shape == (2, *SHAPE)


@pytest.mark.parametrize("family", ["cnn", "vae", "pair"])
def test_nothing_in_a_packed_model_is_code(packed: Path, family: str) -> None:
    files = {path.suffix for path in (packed / family).rglob("*") if path.is_file()}
    assert files <= {"", ".yaml", ".txt", ".json", ".safetensors"}
    described = (packed / family / "MLmodel").read_text()
    assert "loader_module: diptych.tracking.served" in described
    assert "code:" not in described.replace("code: null", "")


def test_requirements_are_pinned_and_those_of_the_loader(packed: Path) -> None:
    listed = (packed / "pair" / "requirements.txt").read_text().split()
    assert {line.partition("==")[0] for line in listed} >= {"mlflow", "numpy", "pandas", "torch"}
    assert all("==" in line and "+" not in line for line in listed)


def test_changed_weights_are_refused_before_they_are_parsed(packed: Path, tmp_path: Path) -> None:
    import mlflow.pyfunc

    copy = shutil.copytree(packed / "pair", tmp_path / "pair")
    weights = copy / "data" / "pair" / "vae" / "weights.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[:8] = b"\xff" * 8  # a header of 2^64 - 1 bytes
    weights.write_bytes(changed)
    with pytest.raises(ValueError, match=r"vae/weights\.safetensors: .*sha256 must be") as caught:
        mlflow.pyfunc.load_model(str(copy))
    assert "\n" not in str(caught.value)


def test_packing_imports_no_torch(models: Path, tmp_path: Path) -> None:
    """The recorder packs, and it must not take the seconds and the memory that torch takes."""
    code = (
        "import sys; from pathlib import Path; from diptych.tracking.packing import pack_model; "
        f"pack_model(Path({str(tmp_path / 'packed')!r}), Path({str(models / 'pair')!r}), "
        f"{SHAPE}, {{}}); assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)
