"""DVC's own files are damaged, or two pipelines start at once."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.executions import REPRO, PipelineProject, dvc_project
from tests.faults.tiers import trials
from tests.faults.waiting import wait_until

LINES = {
    "first": {"cmd": "echo one >> log; cp in out1", "deps": ["in"], "outs": ["out1"]},
    "second": {"cmd": "echo two >> log; cp out1 out2", "deps": ["out1"], "outs": ["out2"]},
}
CONFLICT = "<<<<<<< HEAD\n{ours}=======\n{theirs}>>>>>>> theirs\n"

Damage = Callable[[bytes, random.Random], bytes]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> PipelineProject:
    """A project of two quick stages whose outputs are up to date, also after each test."""
    folder = tmp_path_factory.mktemp("finished") / "project"
    folder.mkdir()
    (folder / "in").write_text("data\n")
    project = dvc_project(folder, LINES)
    code, output = project.run(*REPRO)
    assert code == 0, output
    return project


def emptied(_content: bytes, _chance: random.Random) -> bytes:
    return b""


def cut(content: bytes, chance: random.Random) -> bytes:
    position = chance.randrange(1, len(content))
    return content[: position - content[:position].endswith(b"\n")]


def with_conflict(content: bytes, chance: random.Random) -> bytes:
    lines = content.decode().splitlines(keepends=True)
    start = chance.randrange(len(lines))
    ours = "".join(lines[start : start + 3])
    conflict = CONFLICT.format(ours=ours, theirs=ours.replace("md5", "md4"))
    return "".join([*lines[:start], conflict, *lines[start + 3 :]]).encode()


DAMAGES: dict[str, Damage] = {
    "empty": emptied,
    "cut": cut,
    "conflict": with_conflict,
    "no text": lambda content, chance: bytes(chance.randrange(128, 256) for _ in content),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_lock_file_is_made_anew(
    finished: PipelineProject, promise: Callable[..., None], damage: str
) -> None:
    """And nothing is computed again: the run cache has it."""
    path = finished.folder / "dvc.lock"
    content, outputs = path.read_bytes(), finished.outputs()
    log = (finished.folder / "log").read_text()
    chance = random.Random(8)
    tried = survived = 0
    for _ in range(trials(quick=1, full=10 if damage in ("cut", "conflict") else 2)):
        path.write_bytes(DAMAGES[damage](content, chance))
        code, output = finished.run(*REPRO)
        is_told = "repro: dvc.lock: is cut or has conflict markers" in output
        is_cheap = (finished.folder / "log").read_text() == log
        tried += 1
        if code == 0 and is_told and is_cheap and finished.outputs() == outputs:
            survived += 1
        else:
            print(output)
    promise("R8", f"dvc.lock, {damage}", tried, survived)


def test_a_lock_file_that_was_cut_between_two_lines_is_filled_up(
    finished: PipelineProject, promise: Callable[..., None]
) -> None:
    """DVC takes it for whole; what it lacks comes back, or is computed again."""
    path = finished.folder / "dvc.lock"
    lines, outputs = path.read_bytes().splitlines(keepends=True), finished.outputs()
    chance = random.Random(11)
    tried = survived = 0
    for _ in range(trials(quick=1, full=6)):
        path.write_bytes(b"".join(lines[: chance.randrange(1, len(lines))]))
        codes = [finished.run(*REPRO) for _ in range(2)]
        is_done = [code for code, _ in codes] == [0, 0] and "are up to date" in codes[1][1]
        tried += 1
        # Sizes and numbers of files may be missing in dvc.lock: DVC asks for none.
        if is_done and finished.outputs() | {"dvc.lock": b""} == outputs | {"dvc.lock": b""}:
            survived += 1
        else:
            print(*codes)
    path.write_bytes(b"".join(lines))
    promise("R8", "dvc.lock, cut between lines", tried, survived)


def test_a_damaged_list_of_busy_paths_is_mended(
    finished: PipelineProject, promise: Callable[..., None]
) -> None:
    path = finished.folder / ".dvc" / "tmp" / "rwlock"
    target = str(finished.folder / "out1")
    # An entry of a killed DVC, whose number another program has today: this one.
    entry = {"pid": os.getpid(), "cmd": "/bin/dvc repro"}
    left = json.dumps({"write": {target: entry}, "read": {target: [entry]}}).encode()
    chance = random.Random(9)
    tried = survived = 0
    (finished.folder / "in").write_text("other data\n")  # else DVC would ask nobody
    for damaged in [b"", left, *(cut(left, chance) for _ in range(trials(quick=1, full=8)))]:
        path.write_bytes(damaged)
        code, output = finished.run(*REPRO, "--force")
        tried += 1
        if code == 0 and "repro: .dvc/tmp/rwlock: " in output:
            survived += 1
        else:
            print(output)
    promise("R8", "rwlock", tried, survived)


def test_a_second_pipeline_waits_for_the_first(
    tmp_path: Path, promise: Callable[..., None]
) -> None:
    """And a bare `dvc repro` beside it does the first no harm."""
    tried = survived = 0
    for trial in range(trials(quick=1, full=5)):
        folder = tmp_path / str(trial) / "project"
        folder.mkdir(parents=True)
        project = dvc_project(folder, {"slow": {"cmd": "echo x >> log; sleep 3", "outs": ["log"]}})
        first = project.start(*REPRO)
        assert wait_until((folder / "log").exists, seconds=30), first.output
        second, bare = project.start(*REPRO), project.start("dvc", "repro")
        codes = first.end(), second.end()
        is_refused = bare.end() != 0 and "is busy" in bare.output
        tried += 1
        is_told = f"repro: waits for process {first.pid}, which runs" in second.output
        is_once = (folder / "log").read_text() == "x\n"
        if codes == (0, 0) and is_told and is_once and is_refused:
            survived += 1
        else:
            print(codes, first.output, second.output, bare.output)
    promise("R6", "", tried, survived)
