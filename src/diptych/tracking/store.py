"""Which store records the runs: one per project, whatever the working directory."""

import errno
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diptych.locks import locked_folder

DATABASE_FILE = "mlflow.db"
ARTIFACT_FOLDER = "mlartifacts"

_SQLITE = "sqlite:///"
_SERVER_SCHEMES = ("http://", "https://", "databricks", "uc:")


@dataclass(frozen=True, slots=True)
class Store:
    """Where runs are recorded.

    Attributes:
        uri: MLflow's tracking URI; may hold credentials.
        experiment: The experiment's name.
        database: The SQLite file, or None where something else keeps the runs.
        artifact_folder: Where artifacts go, or None where a server decides.
    """

    uri: str
    experiment: str
    database: Path | None
    artifact_folder: Path | None

    @property
    def is_remote(self) -> bool:
        """Tell whether a network lies between this process and the store."""
        return self.database is None

    @property
    def artifact_location(self) -> str | None:
        """The experiment's artifact root, as MLflow wants it."""
        if self.artifact_folder is None:
            return None
        # Without one, MLflow takes the working directory of the experiment's first user.
        return (self.artifact_folder / re.sub(r"[^\w.-]", "_", self.experiment)).as_uri()


def find_store(root: Path, environment: Mapping[str, str]) -> Store:
    """Return the store that MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME ask for.

    Args:
        root: The project's main folder; holds the default store, and relative SQLite paths start
            here.
        environment: The process's environment variables.
    """
    uri = environment.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}{DATABASE_FILE}"
    experiment = environment.get("MLFLOW_EXPERIMENT_NAME") or "diptych"
    if uri.startswith(_SERVER_SCHEMES):
        return Store(uri, experiment, None, None)
    if not uri.startswith(_SQLITE):
        return Store(uri, experiment, None, root / ARTIFACT_FOLDER)
    path, question_mark, query = uri.removeprefix(_SQLITE).partition("?")
    database = root / path
    artifacts = database.parent / ARTIFACT_FOLDER
    return Store(f"{_SQLITE}{database}{question_mark}{query}", experiment, database, artifacts)


def find_root(params_path: Path, environment: Mapping[str, str]) -> Path:
    """Return the project's main folder, also from within a DVC experiment's temporary copy.

    Args:
        params_path: The parameter file of the stage.
        environment: The process's environment variables; DVC sets DVC_ROOT.
    """
    if dvc_root := environment.get("DVC_ROOT"):
        return _outside_of_experiments(Path(dvc_root).resolve())
    return _outside_of_experiments(find_workspace(params_path, environment))


def find_workspace(params_path: Path, environment: Mapping[str, str]) -> Path:
    """Return the folder whose code and parameters run: the project or an experiment's copy.

    Args:
        params_path: The parameter file of the stage.
        environment: The process's environment variables. DVC's own DVC_ROOT comes second: in an
            experiment's copy it names the project.
    """
    start = params_path.resolve().parent
    if workspace := _nearest_with(".dvc", start):
        return workspace
    if dvc_root := environment.get("DVC_ROOT"):
        return Path(dvc_root).resolve()
    return _nearest_with(".git", start) or start


def _nearest_with(marker: str, start: Path) -> Path | None:
    return next((one for one in (start, *start.parents) if (one / marker).exists()), None)


def _outside_of_experiments(workspace: Path) -> Path:
    parts = workspace.parts
    for index in range(len(parts) - 2):
        if parts[index : index + 3] == (".dvc", "tmp", "exps"):
            return Path(*parts[:index])
    return workspace


def initialise_database(database: Path, artifact_folder: Path) -> None:
    """Create a SQLite store that does not exist yet, once, however many processes ask for it.

    Several processes that let MLflow create the same file corrupt it. Here one creates it, under
    a lock and another name, and the others wait.
    """
    if database.is_dir():  # SQLite would try to open it, again and again
        raise IsADirectoryError(errno.EISDIR, "must be a file", str(database))
    if database.exists():
        return
    artifact_folder.mkdir(parents=True, exist_ok=True)
    with locked_folder(artifact_folder):
        if database.exists():
            return
        temporary = database.with_name(f".{database.name}.new")
        temporary.unlink(missing_ok=True)
        _create_database(temporary, artifact_folder)
        temporary.replace(database)


def _create_database(database: Path, artifact_folder: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    uri = f"{_SQLITE}{database}"
    store = SqlAlchemyStore(uri, artifact_folder.as_uri())  # type: ignore[no-untyped-call]
    store.engine.dispose()
