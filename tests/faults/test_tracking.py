"""R12: whatever becomes of the server, a training goes on, and in the end the server has it all."""

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from diptych.tracking.sync import SyncError, sync, unrecorded_journals
from tests.faults.proxy import FAULTS, Fault, FaultProxy
from tests.faults.tiers import chosen_tier, trials
from tests.faults.trainings import METRICS, Training, started_trainer
from tests.faults.waiting import wait_for_recorders, wait_until
from tests.tracking.conftest import empty_database, server_uri

__all__ = ["empty_database", "server_uri"]  # fixtures from beside

# A training waits at its end for a server that does not answer, whatever it took itself.
GOODBYE_SECONDS = 15.0
SLOWER = 0.1


class Trial:
    """A training whose tracker talks to a server by way of a proxy of its own."""

    def __init__(self, root: Path, server_port: int, fault: Fault | None, seed: int) -> None:
        # A soak has more rounds, not longer ones.
        num_steps = trials(quick=10, full=110, soak=110)
        step_seconds = trials(quick=1, full=10, soak=10) / 10
        self.fault = fault
        self.proxy = FaultProxy(server_port, seed)
        self.training = Training(str(root), self.proxy.uri, num_steps, step_seconds)
        seconds = num_steps * step_seconds
        self._begins = random.Random(seed).uniform(0, 0.5) * seconds
        self._ends = self._begins + seconds / 4 if fault == "restarted" else math.inf

    def follow(self, since_seconds: float) -> None:
        """Have the fault begin and end when it is time."""
        if self.fault is not None and since_seconds >= self._begins:
            self.proxy.begin(self.fault)
            self._begins = math.inf
        if since_seconds >= self._ends:
            self.proxy.end()
            self._ends = math.inf


def wait_for_all(running: list[Trial], trainings: list[Training]) -> None:
    started = time.monotonic()

    def is_over() -> bool:
        for trial in running:
            trial.follow(time.monotonic() - started)
        return all(training.seconds is not None for training in trainings)

    assert wait_until(is_over, seconds=300, pause_seconds=0.05)
    for trial in running:
        wait_for_recorders(Path(trial.training.root))


def is_whole(client: Any, experiment_id: str, training: Training) -> bool:
    """Whether a store has a training's run once, ended, and each of its figures once."""
    condition = f"attributes.run_name = '{training.name}'"
    runs = client.search_runs([experiment_id], condition)
    if [run.info.status for run in runs] != ["FINISHED"]:
        return False
    expected = Counter(range(1, training.num_steps + 1))
    histories = [client.get_metric_history(runs[0].info.run_id, key) for key in METRICS]
    right = all(point.value == 1 / point.step for point in histories[0])
    return right and all(
        Counter(point.step for point in history) == expected for history in histories
    )


@pytest.fixture
def trial_round(
    tmp_path: Path, server_uri: str, request: pytest.FixtureRequest
) -> Iterator[Callable[[int], tuple[list[Trial], Training]]]:
    """Run, at the same time, a training for each fault, one without and one without tracking."""
    port = int(server_uri.rpartition(":")[2])
    made: list[Trial] = []
    with started_trainer() as trainer:

        def run(number: int) -> tuple[list[Trial], Training]:
            faults = [*FAULTS * trials(quick=1, full=2, soak=2), None]
            found = [
                Trial(tmp_path / f"round{number}-{index}", port, fault, 100 * number + index)
                for index, fault in enumerate(faults)
            ]
            made.extend(found)
            first = found[0].training
            off = Training(
                str(tmp_path / f"round{number}-off"), "", first.num_steps, first.step_seconds
            )
            trainings = [*(one.training for one in found), off]
            for training in trainings:
                trainer.start(training)
            wait_for_all(found, trainings)
            return found, off

        yield run
    for trial in made:
        trial.proxy.close()


def sync_later(trial: Trial) -> None:
    """Bring the server level: not before it answers, and then to the end."""
    root = Path(trial.training.root)
    if trial.fault in ("down", "503", "hanging"):
        assert unrecorded_journals(root)
        with pytest.raises(SyncError, match="must answer"):
            list(sync(root, {}))
    assert trial.proxy.num_reset > 0 or trial.fault != "reset after commit"
    trial.proxy.end()
    assert all(run.is_recorded for run in sync(root, {}))
    assert list(sync(root, {})) == []


def test_whatever_becomes_of_the_server_nothing_is_lost_or_doubled(
    trial_round: Callable[[int], tuple[list[Trial], Training]],
    server_uri: str,
    promise: Callable[..., None],
) -> None:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=server_uri)
    tried, whole, in_time = Counter[str](), Counter[str](), 0
    slowest = 0.0
    for number in range(trials(quick=1, full=2)):
        found, off = trial_round(number)
        healthy = next(one.training for one in found if one.fault is None)
        usual = max(off.seconds or 0.0, healthy.seconds or 0.0)
        allowed = usual * (1 + SLOWER) + trials(quick=1, full=0, soak=0) * GOODBYE_SECONDS
        experiment = client.get_experiment_by_name("diptych")
        assert experiment is not None
        assert is_whole(client, experiment.experiment_id, healthy)
        for trial in found:
            if trial.fault is not None:
                sync_later(trial)
                seconds = trial.training.seconds or math.inf
                tried[trial.fault] += 1
                in_time += seconds <= allowed
                whole[trial.fault] += is_whole(client, experiment.experiment_id, trial.training)
                slowest = max(slowest, seconds / usual - 1)
    for fault, num in tried.items():
        promise("R12", fault, num, whole[fault])
    told = f"trainings of {usual:.0f} s, at most {slowest:.1%} slower"
    detail = "" if chosen_tier() == "quick" else told
    promise("R12", "in time", tried.total(), in_time, detail=detail)
