from pathlib import Path

import pytest

from diptych.tracking.store import Store, find_root, find_store, find_workspace


def test_the_default_store_lies_at_the_root(tmp_path: Path) -> None:
    store = find_store(tmp_path, {})
    assert store == Store(
        uri=f"sqlite:///{tmp_path}/mlflow.db",
        experiment="diptych",
        database=tmp_path / "mlflow.db",
        artifact_folder=tmp_path / "mlartifacts",
    )
    assert store.artifact_location == f"file://{tmp_path}/mlartifacts/diptych"
    assert not store.is_remote


def test_a_relative_sqlite_store_starts_at_the_root_and_keeps_its_options(tmp_path: Path) -> None:
    store = find_store(tmp_path, {"MLFLOW_TRACKING_URI": "sqlite:///runs/all.db?timeout=9"})
    assert store.uri == f"sqlite:///{tmp_path}/runs/all.db?timeout=9"
    assert store.artifact_folder == tmp_path / "runs" / "mlartifacts"


def test_an_absolute_sqlite_store_stays_where_it_is(tmp_path: Path) -> None:
    store = find_store(Path("/elsewhere"), {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/a.db"})
    assert store.database == tmp_path / "a.db"


@pytest.mark.parametrize("uri", ["http://host:5000", "https://me:pw@host/path"])
def test_a_server_decides_where_artifacts_go(uri: str, tmp_path: Path) -> None:
    environment = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_EXPERIMENT_NAME": "team/x"}
    store = find_store(tmp_path, environment)
    assert store == Store(uri, "team/x", database=None, artifact_folder=None)
    assert store.is_remote
    assert store.artifact_location is None


def test_another_database_gets_the_projects_artifact_folder(tmp_path: Path) -> None:
    store = find_store(tmp_path, {"MLFLOW_TRACKING_URI": "postgresql://me:pw@host/runs"})
    assert store.artifact_folder == tmp_path / "mlartifacts"
    assert store.is_remote


def test_the_root_is_found_from_the_parameter_file(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "project" / ".dvc").mkdir(parents=True)
    (tmp_path / "project" / "a" / "b").mkdir(parents=True)
    assert find_root(tmp_path / "project/a/b/params.yaml", {}) == tmp_path / "project"
    assert find_root(tmp_path / "params.yaml", {}) == tmp_path


def test_an_experiments_temporary_copy_leads_to_the_main_root(tmp_path: Path) -> None:
    copy = tmp_path / ".dvc" / "tmp" / "exps" / "standalone" / "tmp1"
    (copy / ".dvc").mkdir(parents=True)
    assert find_workspace(copy / "params.yaml", {}) == copy
    assert find_root(copy / "params.yaml", {}) == tmp_path
    assert find_root(Path("params.yaml"), {"DVC_ROOT": str(copy)}) == tmp_path


def test_in_an_experiments_copy_dvc_names_the_project_as_its_root(tmp_path: Path) -> None:
    copy = tmp_path / ".dvc" / "tmp" / "exps" / "standalone" / "tmp1"
    (copy / ".dvc").mkdir(parents=True)
    environment = {"DVC_ROOT": str(tmp_path)}
    assert find_workspace(copy / "params.yaml", environment) == copy
    assert find_root(copy / "params.yaml", environment) == tmp_path
    nowhere = Path("/params.yaml")
    assert find_workspace(nowhere, environment) == tmp_path
