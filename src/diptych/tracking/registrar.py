"""What promotions and rollbacks work with, opened for a project."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.params import load_params
from diptych.promotion.params import PromotionParams
from diptych.promotion.record import Family
from diptych.tracking.client import connect, failures_in_one_line, store_of
from diptych.tracking.mlflow_tracker import JOURNALS_FOLDER
from diptych.tracking.model_records import Evaluation, Evaluator
from diptych.tracking.moves import RaiseIfLost
from diptych.tracking.process import await_recorders
from diptych.tracking.promotion_lock import PATIENCE_SECONDS, promotion_lock
from diptych.tracking.registry import Registry, model_name
from diptych.tracking.store import find_root

if TYPE_CHECKING:
    from mlflow import MlflowClient

_RECORDING_SECONDS = 60.0
_SILENT_SECONDS = 0.5  # of waiting that need not be told


@dataclass(frozen=True, slots=True)
class Registrar:
    """What a promotion or rollback works with.

    Attributes:
        client: Of the store.
        experiment: Where the pipeline records.
        policy: Section `promotion` of params.yaml.
        notice: Told in one line of what is not a result.
        patience_seconds: The longest wait for the lock.
    """

    client: "MlflowClient"
    experiment: str
    policy: PromotionParams
    notice: Callable[[str], None]
    patience_seconds: float = PATIENCE_SECONDS

    def registry(self, family: Family) -> Registry:
        """Return the registered model of a family."""
        return Registry(self.client, model_name(self.policy.prefix, family))

    def lock(self, registry: Registry) -> AbstractContextManager[RaiseIfLost]:
        """Return the lock under which a registered model may be changed."""
        return promotion_lock(self.client, registry.name, self.notice, self.patience_seconds)


@contextmanager
def open_registrar(params: Path, notice: Callable[[str], None]) -> Iterator[Registrar]:
    """Open the store of a project.

    Args:
        params: Its parameter file.
        notice: Told in one line of what is not a result.

    Raises:
        ParamsError: when the section `promotion` is not as it must be.
        StoreError: when there is no store, or it fails while the block runs.
    """
    policy = load_params(params, "promotion", PromotionParams)
    store = store_of(params)
    client = connect(store)
    with failures_in_one_line(store):
        yield Registrar(client, store.experiment, policy, notice)


def evaluator(params: Path, processed: Path) -> Evaluator:
    """Return what evaluates a champion anew.

    Args:
        params: The project's parameter file.
        processed: The project's data set.
    """

    def evaluate(family: Family, folder: Path, protocol: Mapping[str, float]) -> Evaluation:
        # Importing it takes seconds, and it is hardly ever needed.
        from diptych.tracking.reevaluation import evaluate_anew

        return evaluate_anew(family, folder, processed, params, protocol)

    return evaluate


def await_recording(
    params: Path, notice: Callable[[str], None], timeout_seconds: float = _RECORDING_SECONDS
) -> None:
    """Wait until executions that are over are recorded: the newest is what many want to promote.

    Args:
        params: The project's parameter file.
        notice: Told in one line of a wait that can be felt, and of one in vain.
        timeout_seconds: The longest wait.
    """
    folders = find_root(params, os.environ) / JOURNALS_FOLDER
    if _are_recorded_within(folders, min(_SILENT_SECONDS, timeout_seconds)):
        return
    notice(f"runs that have ended are being recorded: waiting up to {timeout_seconds:.0f} s")
    if not _are_recorded_within(folders, timeout_seconds):
        notice(f"they are still being recorded after {timeout_seconds:.0f} s: waiting no longer")


def _are_recorded_within(folders: Path, seconds: float) -> bool:
    """Wait for recorders and tell whether that took less than the longest wait."""
    started = time.monotonic()
    await_recorders(folders, seconds)
    return time.monotonic() - started < seconds
