"""What MLflow loads: the models' own answers, by a loader that comes with them."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from diptych.tracking.packing import imported_files, pack_model
from diptych.tracking.served import load_served
from tests.tracking.served_pairs import NAMES, SHAPE, digits, save_small_pair

SOURCE = Path(__file__).parents[2] / "src"

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
def test_nothing_in_a_packed_model_is_code_but_the_loader(packed: Path, family: str) -> None:
    files = [path for path in (packed / family).rglob("*") if path.is_file()]
    code = packed / family / "code"
    suffixes = {path.suffix for path in files if not path.is_relative_to(code)}
    assert suffixes <= {"", ".yaml", ".txt", ".json", ".safetensors"}
    assert "loader_module: diptych.tracking.served" in (packed / family / "MLmodel").read_text()
    for path in code.rglob("*.py"):
        assert path.read_bytes() == (SOURCE / path.relative_to(code)).read_bytes()


ELSEWHERE = """
import importlib.util, json, sys
import numpy as np
assert importlib.util.find_spec("diptych") is None
import mlflow.pyfunc
loaded = mlflow.pyfunc.load_model(sys.argv[1])
images = np.load(sys.argv[2])
answers = np.asarray(loaded.predict(images))
np.save(sys.argv[3], answers.astype(str), allow_pickle=False)
loaded.predict(loaded.input_example)
names = [name for name in sys.modules if name.partition(".")[0] == "diptych"]
print(json.dumps([sys.modules[name].__file__ for name in names]))
"""


@pytest.mark.parametrize("family", ["cnn", "vae", "pair"])
def test_a_packed_model_is_loaded_where_this_package_is_not_installed(
    models: Path, packed: Path, family: str, tmp_path: Path
) -> None:
    """Where it was logged on a GPU as well: what answers is chosen where it is loaded."""
    copy = shutil.copytree(packed / family, tmp_path / "elsewhere")
    np.save(tmp_path / "images.npy", digits(7))
    # Without the file of site-packages that leads to this project.
    command = [sys.executable, "-S", "-P", "-W", "ignore", "-c", ELSEWHERE]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")},
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "MLFLOW_DEFAULT_PREDICTION_DEVICE": "cuda",
        "OMP_NUM_THREADS": "1",  # as here: another number may change the last bits
    }
    done = subprocess.run(
        [*command, str(copy), str(tmp_path / "images.npy"), str(tmp_path / "answers.npy")],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    expected = np.asarray(load_served(models / family).predict(digits(7))).astype(str)
    np.testing.assert_array_equal(np.load(tmp_path / "answers.npy"), expected)
    # All that it imported came with it, and nothing came that it did not import.
    imported = {Path(file) for file in json.loads(done.stdout)}
    assert imported == set((copy / "code").rglob("*.py"))


def test_what_a_module_imports_is_found_however_it_is_written(tmp_path: Path) -> None:
    package = write_package(
        tmp_path / "from" / "small",
        {
            "loader.py": "from small import by_name as x, value\nfrom small.deep import (\n inner)",
            "__init__.py": "value = 1",
            "by_name.py": "def late():\n    import small.plain, sys\n    return small.plain.found",
            "plain.py": "from .relative import *\nfrom . import beside",
            "relative.py": "found = True",
            "beside.py": "from small import loader",
            "deep/__init__.py": "",
            "deep/inner.py": "from ..deep.innermost import value\nfrom .. import above",
            "deep/innermost.py": "value = 'import small.unused'  # and from small import unused",
            "above.py": "",
            "unused.py": "raise ImportError",
            "deep/unused.py": "raise ImportError",
        },
    )
    found = imported_files(package, "small.loader")
    unused = {Path("unused.py"), Path("deep", "unused.py")}
    assert found == {path.relative_to(package) for path in package.rglob("*.py")} - unused
    # What was found is enough, without the rest.
    for file in found:
        copy = tmp_path / "to" / "small" / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package / file, copy)
    code = "import small.loader; assert small.by_name.late(); print(small.__file__)"
    command = [sys.executable, "-S", "-P", "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "to")}
    done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == str(tmp_path / "to" / "small" / "__init__.py")


def write_package(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_requirements_are_pinned_and_those_of_the_loader(packed: Path) -> None:
    listed = (packed / "pair" / "requirements.txt").read_text().split()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in listed)
    needed = {line.partition("==")[0].partition(".")[0] for line in listed}
    assert needed == {"mlflow", *packages_imported_by(packed / "pair" / "code")}


def packages_imported_by(code: Path) -> set[str]:
    """The packages that are neither Python's own nor this project's."""
    nodes = [
        node
        for path in code.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    ]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in names} - {"diptych"} - sys.stdlib_module_names


def test_the_example_is_no_black_image_and_always_the_same(packed: Path) -> None:
    example, other = (
        json.loads((packed / family / "input_example.json").read_text())
        for family in ("cnn", "pair")
    )
    assert example == other
    images = np.array(example)
    assert images.min(axis=(1, 2, 3)).tolist() == [0, 0]
    assert images.max(axis=(1, 2, 3)).tolist() == [255, 255]
    assert not np.array_equal(images[0], images[1])


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
