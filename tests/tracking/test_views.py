"""The views that `diptych ui` prints are where MLflow's pages look for them."""

import json
import os
import re
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from diptych.tracking.client import connect
from diptych.tracking.events import RunStarted
from diptych.tracking.loopback import HOST, PortError
from diptych.tracking.recorder import MlflowRecorder
from diptych.tracking.serving import free_port
from diptych.tracking.store import DATABASE_FILE, Store, find_store
from diptych.tracking.views import share_views, show_runs
from tests.faults.proxy import FaultProxy
from tests.tracking.conftest import BACKEND_STORE

if TYPE_CHECKING:
    from mlflow.entities import Experiment

pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own


@pytest.fixture
def store(empty_database: Path, tmp_path: Path) -> Store:
    """A store with one run."""
    shutil.copy(empty_database, tmp_path / DATABASE_FILE)
    store = find_store(tmp_path, {})
    MlflowRecorder(store, "journal").record(RunStarted("evaluate", {}, None, 0))
    return store


def experiment_of(store: Store) -> "Experiment":
    found = connect(store).get_experiment_by_name(store.experiment)
    assert found is not None
    return found


def test_each_address_names_a_view_that_the_experiment_has(store: Store) -> None:
    addresses = share_views(store)
    assert list(addresses) == ["runs", "images"]
    experiment = experiment_of(store)
    for address in addresses.values():
        found = re.fullmatch(r"/#(.*)\?.*&viewStateShareKey=([\w-]+)", address)
        assert found is not None
        page, key = found.groups()
        assert page == f"/experiments/{experiment.experiment_id}/runs"
        assert json.loads(experiment.tags[f"mlflow.sharedViewState.{key}"])
    assert share_views(store) == addresses


def test_columns_are_named_as_mlflow_names_them(store: Store) -> None:
    share_views(store)
    tags = experiment_of(store).tags
    columns = json.loads(tags["mlflow.sharedViewState.diptych-runs"])["selectedColumns"]
    assert "metrics.`cnn.accuracy`" in columns
    assert all(re.fullmatch(r"(tags|params|metrics|attributes)\.`[\w.]+`", one) for one in columns)


def test_a_store_without_runs_has_no_views(empty_database: Path, tmp_path: Path) -> None:
    shutil.copy(empty_database, tmp_path / DATABASE_FILE)
    assert share_views(find_store(tmp_path, {})) == {}


def test_the_server_learns_the_store_where_nobody_else_sees_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address may hold credentials, and everybody sees the words of a command."""

    def become(program: str, command: list[str], environment: dict[str, str]) -> None:
        assert command[:4] == [program, "-m", "mlflow", "ui"]
        assert store.uri not in " ".join(command)
        assert environment[BACKEND_STORE] == store.uri
        raise SystemExit(0)

    monkeypatch.setattr(os, "execve", become)
    with pytest.raises(SystemExit):
        show_runs(store, free_port())


def test_no_address_is_printed_that_leads_to_another_server(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "execve")  # or a failure would become a server
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortError, match=rf"^127\.0\.0\.1:{port}: must be a free port"):
            show_runs(store, port)
    assert capsys.readouterr().out == ""


def test_who_may_only_read_is_shown_what_there_is(server_uri: str) -> None:
    """The plain page; once somebody has stored the views who may, these."""
    named = {"MLFLOW_TRACKING_URI": server_uri, "MLFLOW_EXPERIMENT_NAME": "read"}
    store = find_store(Path(), named)
    MlflowRecorder(store, "journal").record(RunStarted("evaluate", {}, None, 0))
    proxy = FaultProxy(int(server_uri.rpartition(":")[2]))
    try:
        proxy.forbid("/experiments/set-experiment-tag")
        reader = find_store(Path(), named | {"MLFLOW_TRACKING_URI": proxy.uri})
        (plain,) = share_views(reader).items()
        views = share_views(store)
        assert share_views(reader) == views
        # As another version of this package has stored it.
        client, experiment = connect(store), experiment_of(store)
        tag, ours = "mlflow.sharedViewState.diptych-images", dict(experiment.tags)
        client.set_experiment_tag(experiment.experiment_id, tag, '{"orderByAsc": true}')
        assert share_views(reader) == views
        assert json.loads(experiment_of(store).tags[tag]) == {"orderByAsc": True}
        assert share_views(store) == views
        assert experiment_of(store).tags == ours
    finally:
        proxy.close()
    assert plain == ("runs", views["runs"].partition("&")[0])


def test_a_server_that_runs_is_not_started_again(
    server_uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = find_store(Path(), {"MLFLOW_TRACKING_URI": server_uri})
    MlflowRecorder(store, "journal").record(RunStarted("evaluate", {}, None, 0))
    with pytest.raises(SystemExit) as ended:
        show_runs(store, 1)
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(f": {server_uri}/#/")[0] for line in lines] == ["runs", "images"]
