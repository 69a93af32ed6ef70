"""Stages on a disk that is full, or that takes small files only: one line, and nothing is lost."""

import contextlib
import functools
import json
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.commands import Ended, end_of_stage, main_of
from tests.faults.outcomes import not_tried
from tests.faults.small_mnist import NUM_VALIDATION, small_dataset
from tests.faults.tiers import trials
from tests.stages.conftest import ROOT, STAGES, contents_of, write_params

# In turn; those that hardly take time come first.
TRIED = ("train_cnn", "preprocess", "download", "evaluate", "train_vae", "generate_samples")
NUM_TRIALS = trials(quick=2, full=42)
NEEDED = list(STAGES)[: 1 + max(map(list(STAGES).index, TRIED[:NUM_TRIALS]))]
PLENTY_BYTES = 64 << 20
IMAGES = {name: small_dataset(name, seed) for seed, name in enumerate(("mnist", "fashion_mnist"))}

Files = dict[str, bytes]
Limited = Callable[[Path, int], contextlib.AbstractContextManager[Path]]
"""Gives an equal folder that takes, while the block runs, so many bytes more."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project after the last stage that is tried. Not to change."""
    parent = tmp_path_factory.mktemp("full")
    sources = [str(images.write(parent / name)) for name, images in IMAGES.items()]
    folder = parent / "project"
    folder.mkdir()
    changes: dict[str, dict[str, Any]] = {
        "checkpoints": {"interval_seconds": 1e-6},
        "dataset": {"sources": sources},
        "preprocess": {"num_validation": NUM_VALIDATION},
    }
    write_params(folder, changes)
    with pytest.MonkeyPatch.context() as patch:
        publish_small_datasets(patch)
        for stage in NEEDED:
            ended = end_of_stage(folder, stage)
            assert ended.code == 0, ended.stderr
        yield folder


def publish_small_datasets(patch: pytest.MonkeyPatch) -> None:
    """Have the stages that know published data sets by their digests know these instead."""
    facts = {name: images.facts for name, images in IMAGES.items()}
    for stage in ("download", "preprocess"):
        patch.setitem(main_of(stage).__globals__, "DATASETS", facts)


def test_a_disk_that_is_full(project: Path, promise: Callable[..., None]) -> None:
    """On disks of a few hundred kilobytes, mounted in a process that may do so."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        not_tried("R10", "a full disk", "this machine permits no mounts of one's own")
    command = ["unshare", "-rm", sys.executable, "-m", "tests.faults.test_full_disk"]
    done = subprocess.run(
        [*command, str(project), str(NUM_TRIALS)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=60 + 20 * NUM_TRIALS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *notes, counts = done.stdout.splitlines()
    print(*notes, sep="\n")
    tried, survived, num_refused = json.loads(counts)
    tell(promise, "a full disk", tried, survived, num_refused)


def test_a_limit_of_file_sizes(project: Path, promise: Callable[..., None]) -> None:
    tell(promise, "a file-size limit", *try_stages(project, NUM_TRIALS, limited_files))


def tell(
    promise: Callable[..., None], what: str, tried: int, survived: int, num_refused: int
) -> None:
    """Tell how many of the stages were refused: those that did without the space prove little."""
    assert num_refused >= tried / 2
    promise("R10", what, tried, survived, detail=f"({num_refused} of the stages ended with a line)")


def try_stages(project: Path, num: int, limited: Limited) -> tuple[int, int, int]:
    """Run every stage with too little space; return how many were tried, survived and refused."""
    chance = random.Random(10)
    survived = num_refused = 0
    for trial in range(num):
        stage = TRIED[trial % len(TRIED)]
        before = outputs(project)
        made = changed_outputs(project, stage)
        largest = max(len(made[path]) for path in made if made[path] != before.get(path))
        with limited(project, chance.randrange(largest)) as small:
            change(small, stage)
            ended, after = end_of_stage(small, stage), outputs(small)
        num_refused += ended.code == 2
        if is_right(ended, before, after, made):
            survived += 1
        else:
            changed = sorted(path for path in after if after[path] != before.get(path))
            print(stage, ended.code, ended.stderr, changed)
    return num, survived, num_refused


def is_right(ended: Ended, before: Files, after: Files, made: Files) -> bool:
    """Tell whether every file is as it was or as it shall be, and an end in need is one line."""
    if ended.code == 0:
        return after == made
    is_kept = all(content in (before.get(path), made.get(path)) for path, content in after.items())
    return is_kept and after.keys() >= before.keys() and ended.last_line_is_refusal()


@functools.cache
def changed_outputs(project: Path, stage: str) -> Files:
    """All outputs after a stage has run with a change and all the space that it wants."""
    folder = project.with_name("made")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(project, folder)
    change(folder, stage)
    ended = end_of_stage(folder, stage)
    assert ended.code == 0, ended.stderr
    return outputs(folder)


def change(folder: Path, stage: str) -> None:
    """Have a stage make something else, of about the same size."""
    path = folder / "params.yaml"
    params = json.loads(path.read_text())
    if stage == "download":
        params["dataset"]["name"] = "fashion_mnist"
    else:
        params[stage]["seed"] += 1
    path.write_text(json.dumps(params))


def outputs(folder: Path) -> Files:
    """What stages have made, temporary files beside it included; not what is kept to go on from."""
    folders = ("data/", "models/", "metrics/", "plots/", "evaluation/", "samples/")
    return {path: text for path, text in contents_of(folder).items() if path.startswith(folders)}


@contextlib.contextmanager
def limited_files(project: Path, num_bytes: int) -> Iterator[Path]:
    """A copy, in which no file may become larger."""
    folder = project.with_name("limited")
    shutil.copytree(project, folder)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    params = (project / "params.yaml").stat().st_size + 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(num_bytes, params), before[1]))
    try:
        yield folder
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        shutil.rmtree(folder)


@contextlib.contextmanager
def small_disk(project: Path, num_bytes: int) -> Iterator[Path]:
    """A copy on a disk of its own that has so many bytes left, up to a page."""
    disk = project.with_name("disk")
    disk.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o"]
    subprocess.run([*mount, f"size={PLENTY_BYTES}", "tmpfs", str(disk)], check=True)
    try:
        folder = shutil.copytree(project, disk / "project")
        state = os.statvfs(disk)
        size = (state.f_blocks - state.f_bfree) * state.f_frsize + num_bytes
        subprocess.run([*mount, f"remount,size={size}", "tmpfs", str(disk)], check=True)
        yield folder
    finally:
        subprocess.run(["umount", str(disk)], check=True)


if __name__ == "__main__":
    publish_small_datasets(pytest.MonkeyPatch())
    print(json.dumps(try_stages(Path(sys.argv[1]), int(sys.argv[2]), small_disk)))
