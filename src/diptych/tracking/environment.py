"""How MLflow is set up in a process of ours, before it is imported."""

import logging
import os

_VARIABLES = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # MLflow's own patience, 7 retries of 120 s, is for programs that cannot go on without it; and
    # it repeats what was written though the answer was lost, the creation of a run too.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A uv.lock names the package index that it was made from.
    "MLFLOW_UV_AUTO_DETECT": "false",
}


def prepare_environment() -> None:
    """Have MLflow answer soon, send nothing anywhere else and print nothing; variables set stay."""
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
