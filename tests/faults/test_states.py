"""R9: of a training's two states a damaged one is refused, and the one before is taken."""

import io
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from diptych.checkpoints import load_state
from diptych.model_files import CheckpointError
from diptych.resuming import CheckpointFolder
from tests.faults.tiers import trials

State = dict[str, object]


def state(step: int) -> State:
    source = torch.Generator().manual_seed(step)
    return {
        "model": {"weight": torch.randn(3, 40, generator=source)},
        "progress": {"noise": source.get_state(), "num_steps": step},
        "history": {"1": {"num_epochs": 2, "metrics": {"loss": 0.5}}},
    }


def checkpoints(folder: Path) -> CheckpointFolder:
    return CheckpointFolder(folder, "of the same training", 3600.0, "models/any")


@pytest.fixture
def saved(tmp_path: Path) -> dict[Path, bytes]:
    """The files of two states, by their paths."""
    folder = tmp_path / "any"
    states = checkpoints(folder)
    states.save(state(1))
    states.save(state(2))
    return {path: path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def flip(content: bytes, source: random.Random) -> bytes:
    damaged = bytearray(content)
    damaged[source.randrange(len(damaged))] ^= 1 << source.randrange(8)
    return bytes(damaged)


def cut(content: bytes, source: random.Random) -> bytes:
    return content[: source.randrange(len(content))]


def stock_is_refused(damage: Callable[[bytes, random.Random], bytes], number: int) -> bool:
    """Tell whether torch refuses its own file after the same damage."""
    file = io.BytesIO()
    torch.save(state(2), file)
    try:
        torch.load(io.BytesIO(damage(file.getvalue(), random.Random(number))))
    except Exception:
        return True
    return False


@pytest.mark.parametrize(
    ("damage", "what"), [(flip, "flips in states"), (cut, "cuts in states")], ids=["flip", "cut"]
)
def test_a_training_goes_on_from_the_state_before_a_damaged_one(
    promise: Callable[..., None],
    saved: dict[Path, bytes],
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[bytes, random.Random], bytes],
    what: str,
) -> None:
    """The state itself is damaged, or its digest, which is shorter, in every fourth trial."""
    newest, digest = max(saved), max(saved).with_suffix(".sha256")
    num, survived, stock = trials(quick=80, full=400), 0, 0
    for number in range(num):
        damaged = digest if number % 4 == 0 else newest
        for path, content in saved.items():
            path.write_bytes(content)
        damaged.write_bytes(damage(saved[damaged], random.Random(number)))
        with pytest.raises(CheckpointError):
            load_state(newest)
        found = checkpoints(newest.parents[1]).load()
        said = capsys.readouterr().err.splitlines()
        is_told = len(said) == 2 and said[0].endswith("; the one before it is taken")
        survived += is_told and equals(found, state(1))
        stock += stock_is_refused(damage, number)
    promise("R9", what, num, survived, stock_tried=num, stock_survived=stock)


def equals(found: object, expected: object) -> bool:
    if isinstance(found, torch.Tensor) and isinstance(expected, torch.Tensor):
        return torch.equal(found, expected)
    if isinstance(found, dict) and isinstance(expected, dict):
        same = [equals(found[key], expected[key]) for key in found.keys() & expected.keys()]
        return found.keys() == expected.keys() and all(same)
    return found == expected


def test_two_damaged_states_are_as_good_as_none(
    promise: Callable[..., None], saved: dict[Path, bytes]
) -> None:
    num, survived = trials(quick=10, full=50), 0
    for number in range(num):
        for path, content in saved.items():
            is_damaged = path.suffix == ".safetensors"
            path.write_bytes(flip(content, random.Random(number)) if is_damaged else content)
        survived += checkpoints(next(iter(saved)).parents[1]).load() is None
    promise("R9", "flips in both states", num, survived)
