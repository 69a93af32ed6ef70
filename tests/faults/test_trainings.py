"""Trainings that diverge, and those that find the state of another one."""

import math
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from diptych.checkpoints import load_state
from diptych.models import load_cnn, load_vae
from tests.faults.children import Child
from tests.faults.executions import statuses_in
from tests.faults.test_interruptions import (
    CHANGES,
    outputs,
    project,
    start,
    wait_for_checkpoint,
)
from tests.faults.tiers import trials
from tests.stages.conftest import write_images, write_params

FAMILIES = ("cnn", "vae")


def change_params(folder: Path, family: str) -> None:
    write_params(folder, {**CHANGES, f"train_{family}": {**CHANGES[f"train_{family}"], "seed": 5}})


def change_data(folder: Path, family: str) -> None:
    write_images(folder, (1, 16, 16))


def change_precision(folder: Path, family: str) -> None:
    write_params(folder, {**CHANGES, "compute": {"precision": "bfloat16"}})


DIFFERENCES: dict[str, Callable[[Path, str], None]] = {
    "params": change_params,
    "data": change_data,
    "precision": change_precision,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_state_of_another_training_is_not_used(
    tmp_path: Path, promise: Callable[..., None], family: str
) -> None:
    """What comes out is what a training makes that finds nothing."""
    chance = random.Random(24)
    tried = survived = 0
    differences = list(DIFFERENCES)[: trials(quick=1, full=3, soak=3)]
    for difference in differences:
        change = DIFFERENCES[difference]
        fresh = project(tmp_path / difference)
        change(fresh, family)
        assert start(fresh, family).end()[0] == 0
        for trial in range(trials(quick=1, full=3)):
            folder = project(tmp_path / f"{difference}-{trial}")
            stopped = start(folder, family)
            wait_for_checkpoint(folder, family, chance.randint(1, 20))
            stopped.send_signal(signal.SIGTERM)
            assert stopped.end()[0] == 143
            change(folder, family)
            code, errors = start(folder, family).end()
            tried += 1
            is_told = "a checkpoint of other params, data or code is not used" in errors
            is_right = code == 0 and outputs(folder, family) == outputs(fresh, family)
            survived += is_told and is_right and "goes on where" not in errors
    promise("R24", f"{family}: {', '.join(differences)}", tried, survived)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loss_that_is_not_finite_stops_the_training_in_that_step(
    tmp_path: Path, promise: Callable[..., None], family: str
) -> None:
    """The model of before is kept, and so is the state of the step before."""
    chance = random.Random(21)
    stage = f"train_{family}"
    tried = survived = 0
    for trial in range(trials(quick=1, full=5)):
        folder = project(tmp_path / str(trial))
        assert start(folder, family).end()[0] == 0
        before = outputs(folder, family)
        diverging = {"optimizer": "adamw", "learning_rate": 10.0 ** chance.randint(15, 35)}
        write_params(folder, {**CHANGES, stage: {**CHANGES[stage], **diverging}})
        is_recorded = family == "cnn" and trial == 0
        code, errors = start_recorded(folder, stage, is_recorded).end()
        line = errors.splitlines()[-1]
        tried += 1
        is_stopped = code == 2 and line.startswith(f"{stage}: {stage} epoch ")
        is_told = is_stopped and "the loss must be finite (got " in line
        is_closed = not is_recorded or statuses_in(folder) == ["FAILED"]
        is_kept = outputs(folder, family) == before and is_loadable(folder, family)
        if is_told and is_kept and is_closed and "Traceback" not in errors:
            survived += 1
        else:
            print(errors)
    promise("R21", family, tried, survived)


def start_recorded(folder: Path, stage: str, is_recorded: bool) -> Child:
    (folder / ".dvc").mkdir()  # makes it the project's main folder, which holds the store
    return Child(folder, stage, {"DIPTYCH_TRACKING": "on" if is_recorded else "off"})


def is_loadable(folder: Path, family: str) -> bool:
    """Tell whether the model of before and the newest state can be loaded, and are finite."""
    load = {"cnn": load_cnn, "vae": load_vae}[family]
    load(folder / "models" / family)
    states = folder / ".diptych" / "checkpoints" / "models" / family
    newest = max(states.glob("*/*.safetensors"))
    figures = leaves(load_state(newest)["model"])
    return bool(figures) and all(math.isfinite(one.double().abs().max()) for one in figures)


def leaves(state: object) -> list[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return [state] if state.is_floating_point() else []
    return [leaf for part in state.values() for leaf in leaves(part)]  # type: ignore[attr-defined]
