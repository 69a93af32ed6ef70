"""What MLflow's pages show first: runs as a table of what is compared, and their images."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from diptych.tracking.client import connect, failures_in_one_line, is_refusal
from diptych.tracking.loopback import HOST, address_of, check_port
from diptych.tracking.secrets import redacted
from diptych.tracking.store import Store, initialise_database

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

_TAG = "mlflow.sharedViewState."  # of an experiment; MLflow's button "Share" writes such tags
_KEY = "diptych-{}"

_COLUMNS = (
    "metrics.`cnn.accuracy`",
    "metrics.`cnn.accuracy.mean`",  # over seeds, as all that end so: all that such a row has
    "metrics.`cnn.nll_nats`",
    "metrics.`vae.nll_nats`",
    "metrics.`vae.nll_nats.mean`",
    "metrics.`vae.active_units`",
    "metrics.`pair.abstention_share`",
    "metrics.`accepted_share`",
    "params.`dataset.name`",
    "params.`train_cnn.architecture`",
    "params.`train_vae.architecture`",
    "params.`train_vae.num_latents`",
    "tags.`diptych.preset`",
)
_TABLE = {"selectedColumns": _COLUMNS, "columnOrder": _COLUMNS}
_IMAGE_KEY = "test_reconstructions"


@dataclass(frozen=True, slots=True)
class _View:
    """One state of an experiment's page.

    Attributes:
        mode: As the page's address says it.
        state: The page's settings that are not the defaults.
    """

    mode: Literal["TABLE", "CHART"]
    state: Mapping[str, Any]


# Without filter or order of its own, a table has the stages folded below their execution.
_RUNS = _View("TABLE", _TABLE)
_IMAGES = _View(
    "CHART",
    {
        "searchFilter": "tags.`diptych.execution` LIKE '%'",
        "orderByKey": "metrics.`vae.nll_nats`",
        "orderByAsc": False,  # the grid is in reverse order
        **_TABLE,
        "runListHidden": True,
        "chartsSearchFilter": _IMAGE_KEY,
        "compareRunCharts": [
            {
                "type": "IMAGE",
                "uuid": _IMAGE_KEY,
                "metricSectionId": "images",
                "displayName": _IMAGE_KEY,
                "imageKeys": [_IMAGE_KEY],
                "step": 0,
                "runsCountToCompare": 10,
                "showRunParams": False,
                "isGenerated": True,
                "deleted": False,
            }
        ],
        "compareRunSections": [
            {
                "uuid": "images",
                "name": "Images",
                "columns": 1,
                "cardHeight": 360,
                "display": True,
                "isReordered": False,
                "isGenerated": True,
                "deleted": False,
            }
        ],
    },
)
_VIEWS = {"runs": _RUNS, "images": _IMAGES}


def show_runs(store: Store, port: int) -> NoReturn:
    """Print where the views are; become MLflow's server on the loopback interface if none runs.

    Args:
        store: A server's, or one that this process is to show.
        port: Of the server to start.

    Raises:
        PortError: when a server has to be started and its port is taken.
        StoreError: when the store does not answer.
    """
    is_served = store.uri.startswith(("http://", "https://"))
    if not is_served:
        check_port(port)
    server = store.uri.rstrip("/") if is_served else address_of(port)
    for name, address in (share_views(store) or {"runs": "/"}).items():
        print(f"{name}: {redacted(server)}{address}", flush=True)
    if is_served:
        sys.exit(0)
    command = [sys.executable, "-m", "mlflow", "ui", "--workers", "1"]
    command += ["--host", HOST, "--port", str(port)]
    environment = {
        **os.environ,
        # Not on the command line: an address may hold credentials.
        "MLFLOW_BACKEND_STORE_URI": store.uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    os.execve(sys.executable, command, environment)  # noqa: S606


def share_views(store: Store) -> dict[str, str]:
    """Store the views with the experiment and return their addresses, relative to the server's.

    `runs`: a row per pipeline execution, newest first, its stages folded below. `images`: the test
    images' reconstructions by every run beside each other, the likeliest first. To whom the server
    permits no changes, the views that a colleague has stored, or else `runs` alone, as MLflow shows
    it. Of several versions of this package the one that stored them last decides how they look.

    Args:
        store: A local database is created when it is not there yet. Without the experiment there
            is nothing to see.

    Raises:
        StoreError: when the store does not answer.
    """
    if store.database is not None and store.artifact_folder is not None:
        initialise_database(store.database, store.artifact_folder)
    client = connect(store)
    with failures_in_one_line(store):
        experiment = client.get_experiment_by_name(store.experiment)
        if experiment is None:
            return {}
        shared = [name for name in _VIEWS if _share_view(client, experiment, name)]
    page = f"/#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
    return {
        name: f"{page}&compareRunsMode={_VIEWS[name].mode}&viewStateShareKey={_KEY.format(name)}"
        for name in shared
    } or {"runs": page}


def _share_view(client: "MlflowClient", experiment: "Experiment", name: str) -> bool:
    """Store a view as this version has it; tell whether there is one now, if of another version."""
    from mlflow.exceptions import MlflowException

    tag, state = f"{_TAG}{_KEY.format(name)}", json.dumps(_VIEWS[name].state)
    if experiment.tags.get(tag) == state:
        return True
    try:
        client.set_experiment_tag(experiment.experiment_id, tag, state)
    except MlflowException as error:
        if not is_refusal(error):
            raise
        return tag in experiment.tags
    return True
