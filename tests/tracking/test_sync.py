"""What a store that did not answer has missed comes to it later: once, and in the right store."""

import os
import shutil
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from diptych.locks import try_lock
from diptych.tracking.events import MetricsLogged, ParentRun, RunEnded, RunStarted
from diptych.tracking.journal import Journal
from diptych.tracking.mlflow_tracker import JOURNALS_FOLDER
from diptych.tracking.process import SNAPSHOT_FOLDER
from diptych.tracking.snapshot import copy_pipeline
from diptych.tracking.store import DATABASE_FILE, find_store
from diptych.tracking.sync import SyncedRun, SyncError, sync, unrecorded_journals
from tests.faults.commands import end_of_diptych
from tests.tracking.test_completion import reproduced

__all__ = ["reproduced"]  # a fixture from beside

DEAD = "http://127.0.0.1:1"  # no server has this port
PARENT = ParentRun(None, "key", "pipeline", {}, {})


def tell(
    root: Path, name: str, about: dict[str, str], folder: str = "", parent: ParentRun | None = None
) -> Journal:
    """A run whose process has told three figures and its end."""
    journal = Journal(root / JOURNALS_FOLDER / (folder or name) / name, about)
    journal.append(RunStarted(name, {"diptych.stage": name}, parent, 1))
    for step in (1, 2, 3):
        journal.append(MetricsLogged({"loss": 1 / step, "bad": float("nan")}, step, step))
    journal.append(RunEnded("FINISHED", 9))
    return journal


def figures(store_uri: str, experiment: str = "diptych") -> dict[str, Any]:
    """Each run's status and how many values its figures have, by name."""
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=store_uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    names = [run.info.run_name for run in runs]
    assert len(names) == len(set(names))
    return {
        str(run.info.run_name): (
            run.info.status,
            *(len(client.get_metric_history(run.info.run_id, key)) for key in run.data.metrics),
        )
        for run in runs
    }


@pytest.fixture
def local(project: Path) -> dict[str, str]:
    return {"store": find_store(project, {}).uri, "experiment": "diptych"}


def test_what_nobody_recorded_is_recorded_once(project: Path, local: dict[str, str]) -> None:
    assert list(sync(project, {})) == []
    for name in ("a", "b"):
        tell(project, name, local, "key-1", PARENT).close()
    tell(project, "c", local).close()
    assert [journal.name for journal in unrecorded_journals(project)] == ["c", "a", "b"]
    recorded = [SyncedRun(name, local["store"], True) for name in ("c", "a", "b")]
    assert list(sync(project, {})) == recorded
    expected = dict.fromkeys("abc", ("FINISHED", 3, 3)) | {"pipeline": ("FINISHED",)}
    assert figures(local["store"]) == expected
    assert unrecorded_journals(project) == []
    assert list(sync(project, {})) == []
    assert figures(local["store"]) == expected
    assert list((project / JOURNALS_FOLDER).iterdir()) == []


def test_a_store_that_does_not_answer_is_named_and_the_others_are_brought_level(
    project: Path, local: dict[str, str]
) -> None:
    tell(project, "dead", {"store": DEAD, "experiment": "diptych"}).close()
    tell(project, "here", local).close()
    done: list[SyncedRun] = []
    with pytest.raises(SyncError, match=f"^{DEAD}: must answer") as caught:
        done.extend(sync(project, {}))
    assert "\n" not in str(caught.value)
    assert [journal.name for journal in unrecorded_journals(project)] == ["dead"]
    assert figures(local["store"]) == {"here": ("FINISHED", 3, 3)}


def test_what_is_damaged_of_a_journal_keeps_nothing_else_from_the_store(
    project: Path, local: dict[str, str]
) -> None:
    for name in "abc":
        tell(project, name, local, "key-1").close()

    def damage(name: str, old: bytes, new: bytes) -> None:
        events = project / JOURNALS_FOLDER / "key-1" / name / "events.jsonl"
        events.write_bytes(events.read_bytes().replace(old, new, 1))

    damage("a", b'"journal"', b'"jou')
    damage("b", b'"step": 2', b'"step": ')
    damage("c", b'"parent"', b'"parents"')
    # The folder's other journals say for which store they all are.
    assert all(run.is_recorded for run in sync(project, {"MLFLOW_TRACKING_URI": DEAD}))
    found = figures(local["store"])
    assert (found["a"], found["b"]) == (("FINISHED", 3, 3), ("FINISHED", 2, 2))
    assert sorted(found.values()) == [("FINISHED", 2, 2), *[("FINISHED", 3, 3)] * 2]
    assert list(sync(project, {})) == []


def test_a_journal_of_another_version_does_not_keep_others_from_the_store(
    project: Path, local: dict[str, str]
) -> None:
    for name in "ab":
        tell(project, name, local, "key-1").close()
    events = project / JOURNALS_FOLDER / "key-1" / "a" / "events.jsonl"
    events.write_bytes(events.read_bytes().replace(b'"journal": 1', b'"journal": 2'))
    with pytest.raises(SyncError, match=r"/a: must be recorded in .*JournalError"):
        list(sync(project, {}))
    assert figures(local["store"]) == {"b": ("FINISHED", 3, 3)}
    assert [journal.name for journal in unrecorded_journals(project)] == ["a"]


def test_each_journal_says_the_store_and_the_experiment(
    project: Path, empty_database: Path
) -> None:
    other = project / "other"
    other.mkdir()
    shutil.copy(empty_database, other / DATABASE_FILE)
    uri = f"sqlite:///{other / DATABASE_FILE}"
    tell(project, "a", {"store": uri, "experiment": "mine"}).close()
    tell(project, "old", {"store": uri}).close()
    assert {run.store for run in sync(project, {"MLFLOW_EXPERIMENT_NAME": "yours"})} == {uri}
    assert figures(uri, "mine") == {"a": ("FINISHED", 3, 3)}
    assert figures(uri, "yours") == {"old": ("FINISHED", 3, 3)}


def test_a_store_whose_credentials_are_not_here_is_not_asked(project: Path) -> None:
    address = "http://***@127.0.0.1:1"
    tell(project, "a", {"store": address, "experiment": "diptych"}).close()
    with pytest.raises(SyncError, match="with its credentials") as caught:
        list(sync(project, {"MLFLOW_TRACKING_URI": "http://you:hunter2@127.0.0.1:2"}))
    assert "hunter2" not in str(caught.value)
    with pytest.raises(SyncError, match="must answer") as caught:
        list(sync(project, {"MLFLOW_TRACKING_URI": "http://me:hunter2@127.0.0.1:1"}))
    assert "hunter2" not in str(caught.value)


def test_what_somebody_else_writes_or_records_is_left_to_them(
    project: Path, local: dict[str, str]
) -> None:
    told = project / JOURNALS_FOLDER / "told"
    with closing(tell(project, "told", local)):
        tell(project, "held", local).close()
        with (project / JOURNALS_FOLDER / "held" / "lock").open("ab") as lock:
            assert try_lock(lock)
            expected = [SyncedRun(name, local["store"], False) for name in ("held", "told")]
            assert list(sync(project, {})) == expected
            assert unrecorded_journals(project) == []
    assert (told / "told" / "events.jsonl").exists()
    assert {run.name for run in sync(project, {}) if run.is_recorded} == {"held", "told"}


def test_two_at_once_record_everything_once(project: Path, local: dict[str, str]) -> None:
    names = [f"run{number}" for number in range(8)]
    for name in names:
        tell(project, name, local).close()
    done: list[SyncedRun] = []

    def bring_level() -> None:
        done.extend(sync(project, dict(os.environ)))

    threads = [threading.Thread(target=bring_level) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(run.name for run in done) == names
    assert figures(local["store"]) == dict.fromkeys(names, ("FINISHED", 3, 3))


def test_what_an_execution_did_not_have_to_run_comes_too(
    reproduced: Path, empty_database: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(reproduced, tmp_path / "project", symlinks=True)
    shutil.copy(empty_database, root / DATABASE_FILE)
    store = find_store(root, {}).uri
    folder = root / JOURNALS_FOLDER / "key-12345678"
    tell(root, "split", {"store": store}, folder.name, PARENT).close()
    copy_pipeline(root, folder / SNAPSHOT_FOLDER)
    assert [run.name for run in sync(root, {})] == ["split"]
    names = {"pipeline", "split", "train_cnn", "evaluate"}
    assert {name: status for name, (status, *_) in figures(store).items()} == dict.fromkeys(
        names, "FINISHED"
    )
    assert not folder.exists()


def test_the_command_says_what_it_has_brought(project: Path, local: dict[str, str]) -> None:
    tell(project, "a", local).close()
    ended = end_of_diptych(project, "sync")
    assert (ended.code, ended.stdout.splitlines()[0]) == (0, f"a: recorded in {local['store']}")
    tell(project, "b", {"store": DEAD, "experiment": "diptych"}).close()
    assert end_of_diptych(project, "sync").is_refusal(DEAD)
