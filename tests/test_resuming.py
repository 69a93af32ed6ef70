import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from diptych.optimization.params import CheckpointParams
from diptych.resuming import (
    CHECKPOINTS_FOLDER,
    CheckpointFolder,
    resumable_training,
    training_fingerprint,
)
from diptych.stage import BusyError

OUTPUT = Path("models", "cnn")
FOLDER = CHECKPOINTS_FOLDER / OUTPUT
MINE, OTHER = "a" * 64, "b" * 64


@pytest.fixture(autouse=True)
def _working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def folder(identity: str = MINE, interval_seconds: float = 3600.0) -> CheckpointFolder:
    return CheckpointFolder(FOLDER, identity, interval_seconds, OUTPUT.as_posix())


def a_state(step: int) -> dict[str, Any]:
    return {"model": {"weight": torch.full((3,), float(step))}, "step": step}


def step_of(checkpoints: CheckpointFolder) -> int | None:
    state = checkpoints.load()
    return None if state is None else state["step"]


def test_the_newest_of_two_states_is_found_again(capsys):
    assert step_of(folder()) is None
    assert capsys.readouterr().err == ""
    first = folder()
    for step in (1, 2, 3):
        first.save(a_state(step))
    assert len(list(FOLDER.rglob("*.safetensors"))) == 2
    second = folder()
    assert step_of(second) == 3
    assert capsys.readouterr().err == "models/cnn: goes on where it was stopped\n"
    second.save(a_state(4))
    assert step_of(folder()) == 4, "numbers go on as well"


def test_a_damaged_state_is_passed_over_for_the_one_before(capsys):
    first = folder()
    for step in (1, 2):
        first.save(a_state(step))
    newest = max(FOLDER.rglob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-1])
    assert step_of(folder()) == 1
    assert "sha256 must be" in capsys.readouterr().err
    assert not newest.exists(), "it would be kept in the place of a whole one"


def test_the_state_of_another_training_is_not_used(capsys):
    folder().save(a_state(1))
    assert step_of(folder(OTHER)) is None
    message = "models/cnn: a checkpoint of other params, data or code is not used\n"
    assert capsys.readouterr().err == message


def test_saving_is_due_when_the_interval_is_over():
    assert not folder(interval_seconds=3600.0).is_due()
    checkpoints = folder(interval_seconds=1e-9)
    assert checkpoints.is_due()
    checkpoints = folder(interval_seconds=0.05)
    checkpoints.save(a_state(1))
    assert not checkpoints.is_due()


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_saves_behind_the_present_step_and_ends_the_training(number, raised, capsys):
    def train() -> None:
        with resumable_training(OUTPUT, MINE, 3600.0) as states, states.stoppable():
            assert not states.is_due()
            os.kill(os.getpid(), number)
            assert states.is_due()
            states.save(a_state(7))

    before = signal.getsignal(number)
    with pytest.raises(raised) as caught:
        train()
    if number == signal.SIGTERM:
        assert caught.value.code == 143
    assert signal.getsignal(number) is before
    assert capsys.readouterr().err == "models/cnn: stopped; the same command goes on from here\n"
    assert step_of(folder()) == 7


def test_a_second_signal_ends_the_process_at_once():
    def train() -> None:
        with resumable_training(OUTPUT, MINE, 3600.0) as states, states.stoppable():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("goes on")

    with pytest.raises(KeyboardInterrupt):
        train()


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_behind_the_last_step_ends_the_training_and_keeps_its_state(number, raised):
    def train() -> None:
        with resumable_training(OUTPUT, MINE, 3600.0) as states:
            states.save(a_state(9))
            with states.stoppable():
                os.kill(os.getpid(), number)
            pytest.fail("goes on")

    with pytest.raises(raised):
        train()
    assert step_of(folder()) == 9


def test_behind_a_training_a_signal_is_what_it_is_elsewhere():
    def train() -> None:
        with resumable_training(OUTPUT, MINE, 3600.0) as states:
            with states.stoppable():
                states.save(a_state(9))
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("goes on")

    # What a shell starts in the background ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train()
    finally:
        signal.signal(signal.SIGINT, before)
    assert step_of(folder()) == 9


def test_a_training_that_is_done_leaves_nothing_and_one_that_failed_what_it_had():
    def diverge() -> None:
        with resumable_training(OUTPUT, MINE, 3600.0) as states:
            states.save(a_state(2))
            raise ValueError("diverged")

    folder(OTHER).save(a_state(1))
    with pytest.raises(ValueError, match="diverged"):
        diverge()
    assert step_of(folder()) == 2
    with resumable_training(OUTPUT, MINE, 3600.0):
        pass
    assert not FOLDER.exists()


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(143)])
@pytest.mark.parametrize(("steps", "start"), [([], "the beginning"), ([2], "the last checkpoint")])
def test_who_is_stopped_outside_of_the_steps_says_how_to_go_on(end, steps, start, capsys):
    def stopped() -> None:
        with resumable_training(OUTPUT, MINE, 3600.0) as states:
            for step in steps:
                states.save(a_state(step))
            raise end

    with pytest.raises(type(end)):
        stopped()
    line = f"models/cnn: stopped; the same command goes on from {start}\n"
    assert capsys.readouterr().err == line


def test_a_disk_that_takes_nothing_costs_a_line_and_not_the_training(capsys):
    FOLDER.parent.mkdir(parents=True)
    FOLDER.write_text("no folder")
    checkpoints = folder()
    checkpoints.save(a_state(1))
    message = "models/cnn: no checkpoint (Not a directory); the training goes on\n"
    assert capsys.readouterr().err == message
    assert not checkpoints.is_due()


def test_a_full_disk_and_a_signal_promise_no_more_than_is_there(capsys):
    FOLDER.parent.mkdir(parents=True)
    FOLDER.write_text("no folder")

    def train() -> None:
        checkpoints = folder()
        with checkpoints.stoppable():
            os.kill(os.getpid(), signal.SIGINT)
            checkpoints.save(a_state(1))

    with pytest.raises(KeyboardInterrupt):
        train()
    assert capsys.readouterr().err == (
        "models/cnn: no checkpoint (Not a directory);"
        " stopped; the same command goes on from the beginning\n"
    )


def test_the_identity_is_a_function_of_all_that_decides_a_training(cpu):
    def identity(**changes: Any) -> str:
        arguments = {"params": {"seed": 0}, "dataset_sha256": "d", "compute": cpu} | changes
        return training_fingerprint(**arguments)

    torch.set_num_threads(1)
    first = identity()
    assert identity() == first
    assert identity(params={"seed": 1}) != first
    assert identity(dataset_sha256="e") != first
    assert training_fingerprint({"seed": 0}, "d", cpu, "cnn") != first
    torch.set_num_threads(2)
    assert identity() != first


def test_an_output_has_one_writer(monkeypatch):
    monkeypatch.setattr("diptych.stage._PATIENCE_SECONDS", 0.3)

    def train() -> None:
        with resumable_training(OUTPUT, MINE, 3600.0):
            pass

    with resumable_training(OUTPUT, OTHER, 3600.0):
        message = rf"^models/cnn: must have one writer; process {os.getpid()} is training it"
        with pytest.raises(BusyError, match=message):
            train()
    train()


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_an_interval_is_positive(seconds):
    with pytest.raises(ValueError, match="interval_seconds"):
        CheckpointParams(interval_seconds=seconds)
