"""The store as commands open it: checked at once, and failing in one line."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.errors import UserError
from diptych.tracking.environment import prepare_environment
from diptych.tracking.recording import reason_of
from diptych.tracking.secrets import redacted
from diptych.tracking.store import Store, find_root, find_store

if TYPE_CHECKING:
    from mlflow import MlflowClient

_REFUSALS = (401, 403)  # of HTTP: without a login, and without the right


class StoreError(UserError):
    """The store is missing, does not answer, or lacks what was asked for."""


def store_of(params_path: Path) -> Store:
    """Return the store of the project that a parameter file belongs to."""
    return find_store(find_root(params_path, os.environ), os.environ)


def connect(store: Store) -> "MlflowClient":
    """Open a store that exists and return a client of it.

    Raises:
        StoreError: when there is no store, or it does not answer.
    """
    if store.database is not None and not store.database.is_file():
        found = "another kind of file" if store.database.exists() else "no such file"
        raise StoreError(f"{store.database}: must hold recorded runs (got {found})")
    prepare_environment()
    with failures_in_one_line(store):
        import mlflow

        client = mlflow.MlflowClient(tracking_uri=store.uri)
        client.get_experiment_by_name(store.experiment)
    return client


@contextmanager
def failures_in_one_line(store: Store) -> Iterator[None]:
    """Turn what MLflow raises while the block runs into one line that names the store.

    Raises:
        StoreError: for a store that does not answer, or refuses what this user asks for.
    """
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError) as error:
        must = "must permit this to its user" if is_refusal(error) else "must answer"
        raise StoreError(f"{redacted(store.uri)}: {must} ({reason_of(error)})") from None


def is_missing(error: Exception) -> bool:
    """Tell whether an MlflowException says that something does not exist."""
    return getattr(error, "error_code", "") in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")


def is_refusal(error: Exception) -> bool:
    """Tell whether a server has answered that this user may not do what was asked."""
    from mlflow.exceptions import MlflowException
    from requests import HTTPError

    status = None
    if isinstance(error, MlflowException):
        status = error.get_http_status_code()  # type: ignore[no-untyped-call]
    elif isinstance(error, HTTPError) and error.response is not None:  # of artifacts
        status = error.response.status_code
    return status in _REFUSALS
