"""The stages that an execution did not have to run, told after its end as those that ran tell.

A stage that DVC skips or restores runs no code. For each that is up to date and has no run in the
execution, a journal is written here: a link to the run that made its files or, where that is gone,
all that the files tell. They are recorded like any other journal, so that repeating is harmless.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from diptych.images.arrays import DESCRIPTION_FILE, load_description
from diptych.params import read_yaml
from diptych.tracking.dvc_cache import DvcCache, dvc_md5
from diptych.tracking.events import ParentRun, RunEnded, RunReused, RunStarted
from diptych.tracking.journal import Journal
from diptych.tracking.links import find_maker, link_tags, logged_again_tags
from diptych.tracking.outputs import (
    HEADLINE_STAGES,
    PICTURE_OPTIONS,
    log_epochs,
    log_grids,
    log_outputs,
)
from diptych.tracking.params_file import log_params_file
from diptych.tracking.pipeline import LOCK_FILE, PARAMS_FILE, FinishedStage, finished_stages
from diptych.tracking.provenance import sha256_of_values
from diptych.tracking.secrets import redacted
from diptych.tracking.store import Store
from diptych.tracking.tags import (
    FINGERPRINT_TAG,
    LOGGED_AGAIN_TAG,
    PARENT_TAG,
    REUSED_TAG,
    STAGE_TAG,
)
from diptych.tracking.tracker import EventTracker, now_ms

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_UNFINISHED_FOLDER = "unfinished"
# What the stages say themselves; those that train are not named.
_DATASET_CONTEXTS = {"evaluate": "evaluation", "generate_samples": "sampling"}


@dataclass(frozen=True, slots=True)
class Execution:
    """A pipeline execution that has ended.

    Attributes:
        parent_run_id: The run under which its stages hang.
        store: Where that is.
        folder: Holds the execution's journals and takes the new ones.
        snapshot: Holds the files that it had; see `diptych.tracking.snapshot`.
        workspace: The folder in which it ran, which may be gone or have changed.
        root: The project's main folder.
    """

    parent_run_id: str
    store: Store
    folder: Path
    snapshot: Path
    workspace: Path
    root: Path

    def journal_of(self, stage: str) -> Path:
        """Return where the journal of a stage that did not run is written."""
        return self.folder / f"{self.folder.name}-{stage}"


def tell_skipped_stages(execution: Execution) -> None:
    """Write a journal for every stage that is up to date and has no run in an execution.

    Args:
        execution: The execution; all its own journals are recorded.
    """
    if not (execution.snapshot / LOCK_FILE).is_file():
        return
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=execution.store.uri)
    experiment_ids = _experiments(client, execution)
    runs = _runs_under(client, experiment_ids[0], execution.parent_run_id)
    told = {run.data.tags.get(STAGE_TAG) for run in runs}
    tags = _tags_of_the_execution(runs)
    cache = DvcCache(execution.root)
    shutil.rmtree(execution.folder / _UNFINISHED_FOLDER, ignore_errors=True)
    for stage in finished_stages(execution.snapshot, cache):
        if stage.name in told or execution.journal_of(stage.name).exists():
            continue
        made = find_maker(client, experiment_ids, stage.fingerprint)
        if made is not None:
            _tell_link(execution, stage, made, cache, tags)
        else:
            _tell_again(execution, stage, cache, tags)


def _experiments(client: "MlflowClient", execution: Execution) -> list[str]:
    """Return where to look for runs: the parent's experiment first, then the project's own."""
    found = [client.get_run(execution.parent_run_id).info.experiment_id]
    if configured := client.get_experiment_by_name(execution.store.experiment):
        found.append(configured.experiment_id)
    return list(dict.fromkeys(found))


def _runs_under(client: "MlflowClient", experiment_id: str, parent_run_id: str) -> "list[Run]":
    condition = f"tags.`{PARENT_TAG}` = '{parent_run_id}'"
    return list(client.search_runs([experiment_id], condition))


def _tags_of_the_execution(runs: "list[Run]") -> dict[str, str]:
    """Return the tags of a stage that ran: what they say of the execution holds for all."""
    ran = (run.data.tags for run in runs if not {REUSED_TAG, LOGGED_AGAIN_TAG} & {*run.data.tags})
    return next(ran, {})


def _tell_link(
    execution: Execution,
    stage: FinishedStage,
    made: "Run",
    cache: DvcCache,
    tags: Mapping[str, str],
) -> None:
    started = RunStarted(stage.name, link_tags(made, tags), _parent(execution), now_ms())
    with (
        TemporaryDirectory(prefix="diptych-") as temporary,
        _journal_written_whole(execution, stage) as journal,
    ):
        journal.append(started)
        journal.append(RunReused(made.info.run_id, stage.name in HEADLINE_STAGES))
        outs = _outputs(execution, stage, cache, Path(temporary)) or {}
        for option in outs.keys() & PICTURE_OPTIONS:
            log_grids(EventTracker(journal.append), outs[option])
        journal.append(RunEnded("FINISHED", now_ms()))


def _tell_again(
    execution: Execution, stage: FinishedStage, cache: DvcCache, tags: Mapping[str, str]
) -> None:
    """Tell a stage from its files, unless these are nowhere to be found."""
    all_tags = logged_again_tags(tags) | _stage_tags(stage)
    started = RunStarted(stage.name, all_tags, _parent(execution), now_ms())
    with TemporaryDirectory(prefix="diptych-") as temporary:
        outs = _outputs(execution, stage, cache, Path(temporary))
        if outs is None:
            return
        with _journal_written_whole(execution, stage) as journal:
            tracker = EventTracker(journal.append)
            journal.append(started)
            tracker.log_params(stage.params)
            params_file = execution.snapshot / PARAMS_FILE
            log_params_file(tracker, params_file, read_yaml(params_file))
            _log_dataset(tracker, stage, cache, Path(temporary))
            if "curves" in outs:
                log_epochs(tracker, outs["curves"])
            log_outputs(tracker, stage.name, outs)
            journal.append(RunEnded("FINISHED", now_ms()))


def _outputs(
    execution: Execution, stage: FinishedStage, cache: DvcCache, temporary: Path
) -> dict[str, Path] | None:
    """Return a stage's outputs by its options' names, each where its very bytes are.

    That is DVC's cache, made visible in a temporary folder, for what it keeps; the snapshot for
    what git keeps; the workspace for what nobody has committed yet. None if one is gone.
    """
    outs: dict[str, Path] = {}
    for option, path in stage.description.options.items():
        md5 = stage.out_md5s[path]
        if stage.description.outs[path] and cache.show(md5, temporary / path):
            outs[option] = temporary / path
            continue
        places = (execution.snapshot / path, execution.workspace / path)
        intact = [place for place in places if place.exists() and dvc_md5(place) == md5]
        if not intact:
            return None
        outs[option] = intact[0]
    return outs


def _log_dataset(
    tracker: EventTracker, stage: FinishedStage, cache: DvcCache, temporary: Path
) -> None:
    """Log the data set that a stage has read, if it read one, from its description in the cache."""
    for dep, md5 in stage.dep_md5s.items():
        if Path(dep).name == DESCRIPTION_FILE and cache.show(md5, temporary / dep):
            dataset = load_description((temporary / dep).parent)
            context = _DATASET_CONTEXTS.get(stage.name, "training")
            tracker.log_dataset(dataset, Path(dep).parent, context)


def _stage_tags(stage: FinishedStage) -> dict[str, str]:
    return {
        STAGE_TAG: stage.name,
        FINGERPRINT_TAG: stage.fingerprint,
        "dvc.stage": stage.name,
        "mlflow.source.name": f"{stage.name}.py",
        "diptych.params_sha256": sha256_of_values(stage.params),
        **{f"diptych.dep.{path}": value for path, value in stage.dep_hashes.items()},
    }


def _parent(execution: Execution) -> ParentRun:
    """Return the execution's run as one that others have created and will end."""
    return ParentRun(execution.parent_run_id, execution="", name="", params={}, tags={})


@contextmanager
def _journal_written_whole(execution: Execution, stage: FinishedStage) -> Iterator[Journal]:
    """Give a stage's journal, which appears at its place only when the block has succeeded."""
    place = execution.journal_of(stage.name)
    unfinished = execution.folder / _UNFINISHED_FOLDER / place.name
    store = execution.store
    journal = Journal(unfinished, {"store": redacted(store.uri), "experiment": store.experiment})
    try:
        yield journal
    finally:
        journal.close()
    unfinished.replace(place)
    unfinished.parent.rmdir()
