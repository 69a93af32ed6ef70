"""Fingerprints: equal for equal parameters, data and code, different for any other."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from diptych.params import read_yaml
from diptych.tracking.provenance import machine_tags, stage_fingerprint

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
