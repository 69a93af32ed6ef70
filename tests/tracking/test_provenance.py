"""Fingerprints: equal for equal parameters, data and code, different for any other."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from diptych.params import read_yaml
from diptych.tracking.provenance import (
    PEAK_GPU_MEMORY_TAG,
    code_tags,
    compute_tags,
    cost_tags,
    dep_hashes,
    machine_tags,
    stage_fingerprint,
)

ROOT = Path(__file__).parents[2]
PARAMS: dict[str, object] = {"train.learning_rate": 0.1}
PIPELINE = """\
stages:
  split:
    cmd: split
    deps: [split.py]
    outs: [data]
  train:
    cmd: train
    deps: [train.py, library, data/train]
    outs: [model]
"""
LOCK = """\
schema: '2.0'
stages:
  split:
    cmd: split
    deps:
    - path: split.py
      hash: md5
      md5: aaaa
      size: 1
    outs:
    - path: data
      hash: md5
      md5: DATA
      size: 1
      nfiles: 2
  train:
    cmd: train
    deps:
    - path: data/train
      hash: md5
      md5: from-the-last-time
      size: 1
    outs:
    - path: model
      hash: md5
      md5: MODEL
"""


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    for name, text in {
        "dvc.yaml": PIPELINE,
        "dvc.lock": LOCK,
        "split.py": "split",
        "train.py": "train",
        "library/model.py": "model",
        "data/train": "images",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def replace(file: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))

    return change


@pytest.mark.parametrize(
    "change",
    [
        replace("train.py", "train", "t"),
        replace("library/model.py", "model", "m"),
        replace("dvc.lock", "DATA", "other"),
        replace("dvc.yaml", "library, ", ""),
        lambda folder: (folder / "library" / "model.py").rename(folder / "library" / "net.py"),
        lambda folder: (folder / "library" / "more.py").touch(),
    ],
)
def test_what_decides_the_outputs_decides_the_fingerprint(
    pipeline: Path, change: Callable[[Path], object]
) -> None:
    before = stage_fingerprint(pipeline, "train", PARAMS)
    assert before is not None
    assert before == stage_fingerprint(pipeline, "train", PARAMS)
    change(pipeline)
    assert stage_fingerprint(pipeline, "train", PARAMS) != before


def test_parameters_and_stages_tell_fingerprints_apart(pipeline: Path) -> None:
    cases: list[tuple[str, Mapping[str, object]]]
    cases = [("train", PARAMS), ("train", {"train.learning_rate": 0.2}), ("split", PARAMS)]
    assert len({stage_fingerprint(pipeline, *case) for case in cases}) == 3


@pytest.mark.parametrize(
    "change",
    [
        replace("split.py", "split", "s"),
        replace("dvc.lock", "from-the-last-time", "from-another"),
        replace("dvc.lock", "MODEL", "other"),
        replace("data/train", "images", "their hash is the lock's"),
        lambda folder: (
            (folder / "library" / "__pycache__").mkdir()
            or (folder / "library" / "__pycache__" / "model.pyc").touch()
        ),
    ],
)
def test_nothing_else_does(pipeline: Path, change: Callable[[Path], object]) -> None:
    before = stage_fingerprint(pipeline, "train", PARAMS)
    change(pipeline)
    assert stage_fingerprint(pipeline, "train", PARAMS) == before


def test_without_a_lock_the_data_themselves_are_hashed(pipeline: Path) -> None:
    (pipeline / "dvc.lock").unlink()
    before = stage_fingerprint(pipeline, "train", PARAMS)
    assert before is not None
    (pipeline / "data" / "train").write_text("other images")
    assert stage_fingerprint(pipeline, "train", PARAMS) != before


@pytest.mark.parametrize(
    "content", ["", "a", "stages: a", "stages: {}", "stages: {train: {}}", "{"]
)
def test_a_pipeline_that_does_not_describe_the_stage_has_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "dvc.yaml").write_text(content)
    assert stage_fingerprint(tmp_path, "train", PARAMS) is None
    (tmp_path / "dvc.yaml").unlink()
    assert stage_fingerprint(tmp_path, "train", PARAMS) is None


def test_the_lock_is_read_as_yaml_reads_it() -> None:
    from diptych.tracking.provenance import _locked_outs

    lock = ROOT / "dvc.lock"
    stages = read_yaml(lock)["stages"].values()
    assert _locked_outs(lock) == {out["path"]: out["md5"] for s in stages for out in s["outs"]}


def test_no_tag_of_the_machine_is_empty() -> None:
    assert all(machine_tags().values())


def test_a_dep_is_hashed_by_its_bytes_or_as_the_lock_says(pipeline: Path) -> None:
    hashes = dep_hashes(pipeline, "train")
    assert hashes is not None
    assert list(hashes) == ["train.py", "library", "data/train"]
    assert hashes["train.py"] == f"sha256:{hashlib.sha256(b'train').hexdigest()}"
    assert hashes["data/train"] == "md5:DATA"
    (pipeline / "library" / "model.py").write_text("changed")
    changed = dep_hashes(pipeline, "train")
    assert changed is not None
    assert [dep for dep in hashes if hashes[dep] != changed[dep]] == ["library"]


COMMIT, DIRTY, DIFFERENCE = (
    *("mlflow.source.git.commit", "diptych.git_dirty", "diptych.code_diff_sha256"),
)


@pytest.fixture
def repository(pipeline: Path) -> Path:
    """The pipeline's files in a commit; a subfolder of the repository, as a project may be."""
    git(pipeline, "init", "--quiet")
    project = pipeline / "library"
    (project / "dvc.yaml").write_text("stages: {}")
    (project / "dvc.lock").write_text("before")
    git(pipeline, "add", "--all")
    git(pipeline, "commit", "--quiet", "--message", "first")
    return project


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_clean_code_is_its_commit(repository: Path) -> None:
    (repository / "dvc.lock").write_text("rewritten by DVC")
    (repository / "notes.txt").write_text("no code")
    (repository.parent / "elsewhere.py").write_text("no code of this project")
    assert code_tags(repository) == {COMMIT: git(repository, "rev-parse", "HEAD"), DIRTY: "false"}


def test_each_state_of_changed_code_has_a_hash_of_its_own(repository: Path) -> None:
    path = repository / "model.py"
    states: dict[str, Callable[[], object]] = {
        "changed": lambda: path.write_text("other"),
        "changed again": lambda: path.write_text("another"),
        "a new file": lambda: (repository / "new.py").write_text("new"),
        "and changed": lambda: (repository / "new.py").write_text("newer"),
        "and renamed": lambda: (repository / "new.py").rename(repository / "# é\n.py"),
        "and added": lambda: git(repository, "add", "--all"),
        "the pipeline": lambda: (repository / "dvc.yaml").write_text("stages: {a: {}}"),
        "deleted": path.unlink,
    }
    found = {}
    for name, change in states.items():
        change()
        tags = code_tags(repository)
        assert tags[DIRTY] == "true", name
        found[name] = tags[DIFFERENCE]
    assert len(set(found.values())) == len(states)


def test_the_hash_of_a_change_depends_on_nothing_else(repository: Path) -> None:
    (repository / "model.py").write_text("other\n")
    (repository / "new.py").write_text("new")
    before = code_tags(repository)
    for setting in ("diff.noprefix=true", "diff.context=9", "color.ui=always", "diff.external=no"):
        git(repository, "config", *setting.split("="))
    git(repository, "config", "status.showUntrackedFiles", "no")
    (repository / "notes.txt").write_text("no code")
    git(repository, "add", "model.py")
    assert code_tags(repository) == before


def test_code_without_a_commit_has_none(tmp_path: Path) -> None:
    assert code_tags(tmp_path) == {}
    git(tmp_path, "init", "--quiet")
    assert code_tags(tmp_path) == {DIRTY: "false"}
    (tmp_path / "new.py").touch()
    assert code_tags(tmp_path) == {DIRTY: "true"}


def test_the_device_and_precision_that_auto_stands_for_are_named() -> None:
    params = {"compute.device": "cpu", "compute.precision": "float32", "compute.num_threads": 1}
    assert compute_tags(params) == {"diptych.device": "cpu", "diptych.precision": "float32"}
    auto = compute_tags({**params, "compute.device": "auto", "compute.precision": "auto"})
    assert auto["diptych.precision"] in ("float32", "bfloat16")
    assert compute_tags({"train_cnn.seed": 1}) == compute_tags({"compute.device": "pen"}) == {}


def test_the_peak_of_a_gpu_is_told_where_one_was_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of a GPU stands what torch would say of it."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    without = cost_tags(1.0)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 1024**3 + 1)
    tags = cost_tags(1.0)
    assert tags[PEAK_GPU_MEMORY_TAG] == "3072"
    assert {tag for tag in tags if tag not in without} == {PEAK_GPU_MEMORY_TAG, "diptych.gpu"}


def test_costs_are_told_without_importing_torch() -> None:
    code = (
        "import sys; from diptych.tracking.provenance import cost_tags; cost_tags(1.0); "
        "assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)
