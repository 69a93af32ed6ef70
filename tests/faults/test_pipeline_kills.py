"""The pipeline gets signals and kills; the same command again gives what nobody has stopped."""

import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.faults.executions import (
    REPRO,
    Execution,
    PipelineProject,
    Target,
    pipeline_project,
    stages_in,
)
from tests.faults.tiers import PATIENCE_SECONDS, chosen_tier, trials
from tests.faults.waiting import wait_until

pytestmark = pytest.mark.pipeline

TRAININGS = ("train_cnn", "train_vae")
ALL_STAGES = ("download", "preprocess", *TRAININGS, "evaluate", "generate_samples")
STAGES = TRAININGS if chosen_tier() == "quick" else ALL_STAGES
CHANGES: Mapping[str, Mapping[str, object]] = {
    # Some seconds each, so that there is something to interrupt.
    "train_cnn": {"num_epochs": 24, "batch_size": 4, "pruned_fraction": 0.0},
    "train_vae": {"num_epochs": 24, "batch_size": 4},
    "checkpoints": {"interval_seconds": 0.1},
}
TARGETS: tuple[Target, ...] = ("dvc", "stage", "all")
# SIGINT to DVC alone does nothing while a stage runs: DVC leaves Ctrl-C to the stage.
SIGNALS: tuple[tuple[signal.Signals, Target], ...] = (
    (signal.SIGTERM, "dvc"),
    (signal.SIGINT, "all"),
    (signal.SIGTERM, "all"),
    (signal.SIGINT, "stage"),
    (signal.SIGTERM, "stage"),
)
KILLS_PER_ROUND = 5
ENDED = {"KILLED", "FINISHED"}


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> PipelineProject:
    """A project before its first execution. Not to change."""
    return pipeline_project(tmp_path_factory.mktemp("new") / "project", STAGES, CHANGES)


@pytest.fixture(scope="module")
def whole(
    new: PipelineProject, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, bytes], float]:
    """What an execution makes that nobody stops, and how many seconds it takes."""
    project = new.copy(tmp_path_factory.mktemp("whole") / "project")
    started = time.monotonic()
    code, output = project.run(*REPRO)
    assert code == 0, output
    return project.outputs(), time.monotonic() - started


def test_a_pipeline_that_is_killed_anywhere_recovers(
    tmp_path: Path,
    new: PipelineProject,
    whole: tuple[dict[str, bytes], float],
    promise: Callable[..., None],
) -> None:
    """SIGKILL to DVC, to the stage, to both; the next command comes at once, orphan or not."""
    outputs, seconds = whole
    chance = random.Random(2)
    num = trials(quick=2, full=50)
    tried = survived = 0
    for number in range(2 * num):  # some rounds are over before a kill
        project = new.copy(tmp_path / str(number) / "project")
        killed = failed = 0
        for _ in range(min(KILLS_PER_ROUND, num - tried)):
            execution = project.start(*REPRO)
            time.sleep(chance.uniform(0.0, 0.4 * seconds))
            is_hit = is_killed(execution, chance.choice(TARGETS))
            killed += is_hit
            if not is_hit and execution.end() != 0:
                failed += 1
                print(execution.output)
        code, output = project.run(*REPRO)
        is_same = code == 0 and project.outputs() == outputs
        is_recovered = is_same and not failed and not stages_in(project.folder)
        tried += max(1, killed + failed) if not is_recovered else killed
        survived += killed if is_recovered else 0
        if not is_recovered:
            print(output)
        if tried >= num:
            break
    promise("R2", "" if STAGES == ALL_STAGES else "trainings", tried, survived)


def is_killed(execution: Execution, target: Target) -> bool:
    """Kill one or all of an execution; tell whether it had not ended before by itself."""
    if not execution.is_running:
        return False
    # There may be no stage yet, or no more.
    if not execution.send(signal.SIGKILL, target) or not execution.ends_within(2.0):
        execution.send(signal.SIGKILL, "all")
    return execution.end() != 0


def test_a_signal_stops_the_pipeline_and_leaves_nothing_running(
    tmp_path: Path,
    new: PipelineProject,
    whole: tuple[dict[str, bytes], float],
    promise: Callable[..., None],
) -> None:
    """Both signals, to DVC, the stage and both, within trainings; in MLflow nothing stays open."""
    chance = random.Random(4)
    tried = survived = 0
    slowest = 0.0
    while tried < trials(quick=2, full=20):
        project = new.copy(tmp_path / str(tried) / "project")
        stopped = 0
        num_signals = min(len(SIGNALS), trials(quick=2, full=20) - tried)
        for number, target in SIGNALS[:num_signals]:
            execution = project.start(*REPRO, "train_cnn", DIPTYCH_TRACKING="on")
            wait_for_steps(project.folder, execution)
            time.sleep(chance.uniform(0.0, 0.2))
            sent = time.monotonic()
            execution.send(number, target)
            is_over = execution.leaves_no_stage_within(PATIENCE_SECONDS)
            slowest = max(slowest, time.monotonic() - sent)
            if is_over and is_told(execution, number, target):
                stopped += 1
            else:
                print(number, target, execution.end(), execution.output)
        code, output = project.run(*REPRO, "train_cnn", DIPTYCH_TRACKING="on")
        is_same = code == 0 and goes_on(output) and is_part(project.outputs(), whole[0])
        statuses = Counter(project.statuses())
        # Of each execution that was stopped there are two: its own and its training's.
        is_closed = statuses["KILLED"] == 2 * num_signals and statuses.keys() == ENDED
        tried += num_signals
        survived += stopped if is_same and is_closed else 0
        if not (is_same and is_closed):
            print(statuses, output)
    promise("R4", "the pipeline", tried, survived, detail=f"within {slowest:.1f} s")


def wait_for_steps(folder: Path, execution: Execution) -> psutil.Process:
    """Wait until an execution's training has saved a state of its own, and return its process."""
    before = time.time()
    training = execution.training()
    states = folder / ".diptych" / "checkpoints" / "models" / "cnn"

    def has_saved() -> bool:
        digests = states.glob("*/*.sha256")
        return any(digest.stat().st_mtime >= before for digest in digests)

    assert wait_until(has_saved, seconds=60), execution.output
    return training


def is_told(execution: Execution, number: signal.Signals, target: Target) -> bool:
    """Tell whether the training says that it is saved, and DVC, unless it ended before it, how."""
    code = execution.end()
    is_saved = "stopped; the same command goes on from here" in execution.output
    if number == signal.SIGTERM and target != "stage":
        return is_saved and code == -signal.SIGTERM
    # A shell calls both the same: DVC tells a process that a signal ends by the signal's number.
    ends = (f"exited with {128 + number}", f"exited with {-number}")
    return is_saved and code != 0 and any(end in execution.output for end in ends)


def goes_on(output: str) -> bool:
    return "models/cnn: goes on where it was stopped" in output


def is_part(made: Mapping[str, bytes], whole: Mapping[str, bytes]) -> bool:
    """Tell whether the files of the first stage are there and right."""
    made = {path: content for path, content in made.items() if path != "dvc.lock"}
    return "models/cnn/model.json" in made and made.items() <= whole.items()


def test_an_orphan_and_a_second_execution_never_write_together(
    tmp_path: Path,
    new: PipelineProject,
    whole: tuple[dict[str, bytes], float],
    promise: Callable[..., None],
) -> None:
    """DVC is killed while its stage hangs: the next execution's stage waits until it has gone."""
    tried = survived = 0
    for trial in range(trials(quick=1, full=5)):
        project = new.copy(tmp_path / str(trial) / "project")
        first = project.start(*REPRO, "train_cnn")
        orphan = wait_for_steps(project.folder, first)
        orphan.suspend()
        first.send(signal.SIGKILL, "dvc")
        first.end()
        second = project.start(*REPRO, "train_cnn")
        waiting = partial(waits_for_a_lock, project.folder, orphan)
        assert wait_until(waiting, seconds=60), second.output
        time.sleep(trials(quick=1, full=3, soak=3))  # enough to begin, if it could
        is_waiting = second.is_running and not goes_on(second.output)
        orphan.resume()
        code = second.end()
        tried += 1
        is_right = code == 0 and goes_on(second.output) and is_part(project.outputs(), whole[0])
        survived += is_waiting and is_right and not stages_in(project.folder)
    promise("R5", "an orphan", tried, survived)


def waits_for_a_lock(folder: Path, orphan: psutil.Process) -> bool:
    """Tell whether another stage beside an orphan has got as far as to its own lock."""
    lock = str(folder / ".diptych" / "stages" / "train_cnn.lock")
    others = [stage for stage in stages_in(folder) if stage.pid != orphan.pid]
    with contextlib.suppress(psutil.Error):
        return any(file.path == lock for other in others for file in other.open_files())
    return False


@pytest.mark.skipif(chosen_tier() == "quick", reason="a pipeline's minute; params and data suffice")
def test_the_state_of_other_code_is_not_used(
    tmp_path: Path,
    new: PipelineProject,
    whole: tuple[dict[str, bytes], float],
    promise: Callable[..., None],
) -> None:
    tried = survived = 0
    for trial in range(trials(quick=0, full=2)):
        project = new.copy(tmp_path / str(trial) / "project")
        execution = project.start(*REPRO, "train_cnn")
        wait_for_steps(project.folder, execution)
        execution.send(signal.SIGTERM, "dvc")
        execution.end()
        with (project.folder / "src" / "diptych" / "cnn" / "train.py").open("a") as code:
            code.write("# changed\n")
        end, output = project.run(*REPRO, "train_cnn")
        tried += 1
        is_told = "a checkpoint of other params, data or code is not used" in output
        is_right = end == 0 and is_told and not goes_on(output)
        survived += is_right and is_part(project.outputs(), whole[0])
    promise("R24", "cnn: code", tried, survived)
