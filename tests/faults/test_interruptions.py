"""Trainings that are stopped, killed or started twice."""

import contextlib
import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from diptych.checkpoints import load_state
from diptych.model_files import CheckpointError
from tests.faults.children import Child, TorchSaver, be_impatient
from tests.faults.kills import SIGNALS, Kill
from tests.faults.tiers import PATIENCE_SECONDS, chosen_tier, trials
from tests.faults.waiting import wait_until
from tests.stages.conftest import contents_of, write_images, write_params

CHANGES: Mapping[str, Mapping[str, object]] = {
    "train_cnn": {"num_epochs": 3, "batch_size": 4, "pruned_fraction": 0.5},
    "train_vae": {"num_epochs": 3, "batch_size": 4},
    "checkpoints": {"interval_seconds": 1e-6},  # behind every step
}
IMAGE_SHAPE = (1, 12, 12)
FAMILIES = ("cnn", "vae")
CALL, TIME = "a chosen call", "any time"
# A save makes 12, then 14 calls that count: each of them, in an early save and in a later one.
NUM_CALLS = 40
TORN_BYTES = (0, 1, 63, 64, 1000, 10_000)


def project(folder: Path) -> Path:
    folder.mkdir()
    write_params(folder, CHANGES)
    write_images(folder, IMAGE_SHAPE)
    return folder


def start(folder: Path, family: str, prepare: Callable[[], None] | None = None) -> Child:
    return Child(folder, f"train_{family}", {"DIPTYCH_TRACKING": "off"}, prepare)


def wait_for_checkpoint(folder: Path, family: str, number: int) -> int:
    """Wait until a training has written a state of this number or a later one; return which."""
    path = folder / ".diptych" / "checkpoints" / "models" / family

    def find() -> int:
        found = max((int(state.stem) for state in path.glob("*/*.sha256")), default=0)
        return found if found >= number else 0

    found = wait_until(find, seconds=60, pause_seconds=0.002)
    assert found > 0, "no checkpoint"
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """What trainings make that nobody stops."""
    folder = project(tmp_path_factory.mktemp("whole") / "project")
    for family in FAMILIES:
        code, errors = start(folder, family).end()
        assert code == 0, errors
    return {family: outputs(folder, family) for family in FAMILIES}


def outputs(folder: Path, family: str) -> dict[str, bytes]:
    return {
        path: content
        for path, content in contents_of(folder).items()
        if path.startswith((f"models/{family}", f"metrics/train_{family}", f"plots/train_{family}"))
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_a_signal_stops_a_training_and_the_same_command_goes_on(
    tmp_path: Path,
    whole: dict[str, dict[str, bytes]],
    promise: Callable[..., None],
    family: str,
) -> None:
    """Both signals, at random steps; the outputs' bytes are those of an uninterrupted training."""
    chance = random.Random(0)
    tried = stopped = same = 0
    slowest = 0.0
    for trial in range(trials(quick=2, full=20)):
        folder = project(tmp_path / str(trial))
        number, code = [(signal.SIGTERM, 143), (signal.SIGINT, 130)][trial % 2]
        process = start(folder, family)
        wait_for_checkpoint(folder, family, chance.randint(1, 30))
        started = time.monotonic()
        process.send_signal(number)
        found, errors = process.end()
        seconds = time.monotonic() - started
        slowest = max(slowest, seconds)
        tried += 1
        is_saved = found == code and "the same command goes on from here" in errors
        stopped += is_saved and seconds <= PATIENCE_SECONDS
        again, errors = start(folder, family).end()
        is_resumed = again == 0 and "goes on where it was stopped" in errors
        same += is_resumed and outputs(folder, family) == whole[family]
    promise("R4", f"{family}: a stage", tried, stopped, detail=f"within {slowest:.1f} s")
    promise("R3", family, tried, same)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_training_that_is_killed_goes_on_from_its_newest_state(
    tmp_path: Path,
    whole: dict[str, dict[str, bytes]],
    promise: Callable[..., None],
    family: str,
) -> None:
    """SIGKILL while it saves behind every step: at each of a save's calls, and at any time."""
    chance = random.Random(1)
    calls = itertools.cycle(chance.sample(range(1, NUM_CALLS + 1), NUM_CALLS))
    tried, survived, stock = Counter[str](), Counter[str](), 0
    num = trials(quick=1, full=20)
    for trial in range(num):
        folder = project(tmp_path / str(trial))
        kept = Counter[str]()
        for number in range(trials(quick=2, full=3, soak=3)):
            kill = Kill(f"checkpoints/models/{family}/", next(calls), chance.choice(TORN_BYTES))
            how = TIME if number == 0 else CALL
            tried[how] += 1
            kept[how] += is_kept(folder, family, None if how == TIME else kill, chance)
        stock += survives_in_torch(folder, family, tmp_path / f"{trial}.pt", chance)
        code, errors = start(folder, family).end()
        is_same = code == 0 and outputs(folder, family) == whole[family]
        if is_same and "goes on where it was stopped" in errors:
            survived += kept
        else:
            print(errors)
    calls_done, times_done = (f"{family}, at {how}" for how in (CALL, TIME))
    promise("R1", calls_done, tried[CALL], survived[CALL])
    promise("R1", times_done, tried[TIME], survived[TIME], stock_tried=num, stock_survived=stock)


def is_kept(folder: Path, family: str, kill: Kill | None, chance: random.Random) -> bool:
    """Let a training go on until it is killed; tell whether it had, and left, what was saved."""
    before = newest(folder, family)
    training = start(folder, family, None if kill is None else kill.prepare)
    seen = before
    if kill is None:
        seen = wait_for_checkpoint(folder, family, before + chance.randint(1, 5))
        time.sleep(chance.random() * 0.01)
        training.send_signal(signal.SIGKILL)
    code, errors = training.end()
    # A digest is written last, and deleted first.
    digests = [int(path.stem) for path in states(folder, family).glob("*.sha256")]
    is_newest = newest(folder, family) >= max([before, seen, *digests])
    has_gone_on = ("goes on where it was stopped" in errors) == (before > 0)
    print(f"{kill}: {before}, {digests}, {newest(folder, family)}, {code}: {errors}")
    return -code in SIGNALS and is_newest and has_gone_on


def survives_in_torch(folder: Path, family: str, path: Path, chance: random.Random) -> bool:
    """Tell whether a file can be read that a killed process wrote by `torch.save` over and over.

    What it saves is the newest state of a training.
    """
    state = states(folder, family) / f"{newest(folder, family):06}.safetensors"
    saver = TorchSaver(state, path)
    saver.kill(chance.random() * 0.05)
    try:
        torch.load(path)
    except Exception:
        return False
    return True


def states(folder: Path, family: str) -> Path:
    """The folder of a training's states, of which there is one; it need not exist yet."""
    every = folder / ".diptych" / "checkpoints" / "models" / family
    return next(every.glob("*"), every)


def newest(folder: Path, family: str) -> int:
    """The number of the newest state that is whole; 0 if there is none."""
    for path in sorted(states(folder, family).glob("*.safetensors"), reverse=True):
        with contextlib.suppress(CheckpointError):
            load_state(path)
            return int(path.stem)
    return 0


def test_a_second_writer_waits_and_then_says_so(
    tmp_path: Path, promise: Callable[..., None]
) -> None:
    tried = survived = 0
    for trial in range(trials(quick=1, full=5)):
        folder = project(tmp_path / str(trial))
        first = start(folder, "cnn")
        wait_for_checkpoint(folder, "cnn", 1)
        first.send_signal(signal.SIGSTOP)  # a training that goes on for long
        second = start(folder, "cnn", be_impatient if chosen_tier() == "quick" else None)
        code, errors = second.end()
        first.send_signal(signal.SIGCONT)
        first_code, _ = first.end()
        tried += 1
        is_one_line = errors.count("\n") == 1 and f"process {first.pid} is training it" in errors
        survived += code == 2 and is_one_line and first_code == 0
    promise("R5", "one output", tried, survived)
