"""Whatever the store of a command does, the command ends in one line that tells it apart."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from diptych.tracking.client import StoreError, connect, failures_in_one_line
from diptych.tracking.store import Store, find_store
from tests.faults.proxy import FaultProxy

pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own

LOGIN = "me:hunter2"


@pytest.fixture
def proxy(server_uri: str) -> Iterator[FaultProxy]:
    made = FaultProxy(int(server_uri.rpartition(":")[2]))
    yield made
    made.close()


def store_at(port: int) -> Store:
    return find_store(Path(), {"MLFLOW_TRACKING_URI": f"http://{LOGIN}@127.0.0.1:{port}"})


def test_a_store_that_answers_is_opened(proxy: FaultProxy) -> None:
    client = connect(store_at(proxy.port))
    assert client.get_experiment("0").name == "Default"


def test_a_refusal_is_told_from_silence(proxy: FaultProxy) -> None:
    """MLflow raises one error for its routes of runs and another for those of artifacts."""
    store = store_at(proxy.port)
    client = connect(store)
    experiment_id = client.create_experiment("refused")
    run_id = client.create_run(experiment_id).info.run_id
    where = f"http://***@127.0.0.1:{proxy.port}"
    calls: dict[str, Callable[[], object]] = {
        "/experiments/": lambda: client.get_experiment(experiment_id),
        "/mlflow-artifacts/": lambda: client.list_artifacts(run_id),
    }
    for route, call in calls.items():
        proxy.forbid(route)
        with pytest.raises(StoreError) as caught, failures_in_one_line(store):
            call()
        assert str(caught.value).startswith(f"{where}: must permit this to its user (")
        assert "403" in str(caught.value)
        assert "hunter2" not in str(caught.value)


def test_a_server_that_is_down_must_answer(proxy: FaultProxy) -> None:
    proxy.begin("down")
    with pytest.raises(StoreError) as caught:
        connect(store_at(proxy.port))
    assert str(caught.value).startswith(f"http://***@127.0.0.1:{proxy.port}: must answer (")
    assert "hunter2" not in str(caught.value)
