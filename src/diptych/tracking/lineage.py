"""Where a registered model comes from, as the store says."""

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from diptych.errors import UserError
from diptych.params import ParamsError, dotted, load_params, read_yaml
from diptych.promotion.params import PromotionParams
from diptych.promotion.record import Family
from diptych.tracking.client import StoreError, connect, failures_in_one_line, is_missing
from diptych.tracking.dataset_inputs import DATASET_TAG
from diptych.tracking.pipeline import PARAMS_FILE
from diptych.tracking.registry import CHAMPION
from diptych.tracking.store import Store
from diptych.tracking.tags import (
    CODE_DIFF_TAG,
    COMMIT_TAG,
    DIRTY_TAG,
    PARENT_TAG,
    PRESET_TAG,
    STAGE_TAG,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

MACHINE_TAGS = {
    "CPU": "diptych.cpu",
    "GPU": "diptych.gpu",
    "device": "diptych.device",
    "precision": "diptych.precision",
    "threads": "diptych.num_threads",
    "platform": "diptych.platform",
    "Python": "diptych.python",
    "torch": "diptych.version.torch",
}
"""Tags of a run that say what computed it, by what people call it."""

_MODEL = re.compile(r"(?P<name>[^@/]+)(@(?P<alias>[^@/]+)|/(?P<version>[0-9]+))?")


class LineageError(UserError):
    """A model has no such lineage as was asked for."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where one version of a registered model comes from; None where nobody recorded it.

    Attributes:
        model: The registered model's name.
        version: Its version.
        aliases: Of the version.
        family: cnn, vae or pair.
        stage: The stage that made it.
        run_id: That stage's run.
        execution_run_id: The run of the pipeline execution around it.
        experiment: DVC's name of the experiment.
        commit: git's, of the code.
        is_dirty: Whether the code had changes that were not in the commit.
        code_diff_sha256: Identifies these.
        preset: What the parameters were equal to.
        params_text: The whole parameter file, credentials masked; it can be read.
        params_fault: What a parameter file must be that its run keeps and nobody can read.
        dataset_sha256: Identifies the data set.
        weights_sha256: Of the weights.
        description_sha256: Of what model.json says beside them; empty if older code recorded it.
        machine: What computed it, by what people call it.
    """

    model: str
    version: int
    aliases: tuple[str, ...]
    family: str
    stage: str
    run_id: str
    execution_run_id: str | None
    experiment: str | None
    commit: str | None
    is_dirty: bool | None
    code_diff_sha256: str | None
    preset: str | None
    params_text: str | None
    params_fault: str | None
    dataset_sha256: str | None
    weights_sha256: str
    description_sha256: str
    machine: Mapping[str, str]

    @property
    def params(self) -> dict[str, Any]:
        """All parameters, under dotted keys; none without a file that can be read."""
        return {} if self.params_text is None else dotted(_parsed(self.params_text))


def find_lineage(store: Store, model: str, params_path: Path) -> Lineage:
    """Look up where a version of a registered model comes from.

    Args:
        store: Where it is registered.
        model: `NAME@ALIAS`, `NAME/VERSION`, or `NAME` alone for its champion. NAME may be `cnn`,
            `vae` or `pair` for the model with the project's prefix.
        params_path: The parameter file, read for the prefix alone.

    Raises:
        LineageError: when the model's name is no name, or its origin is not recorded.
        StoreError: when the store has no such model, alias, version or run, or does not answer.
        ParamsError: when the prefix is needed and cannot be read.
    """
    parts = _MODEL.fullmatch(model)
    if parts is None:
        raise LineageError(f"{model!r}: must be NAME, NAME@ALIAS or NAME/VERSION")
    name = parts["name"]
    if name in get_args(Family):
        prefix = load_params(params_path, "promotion", PromotionParams).prefix
        name = f"{prefix}-{name}"
    client = connect(store)
    with failures_in_one_line(store):
        registered = _registered_model(client, name)
        number = parts["version"] or _version_of(registered, parts["alias"] or CHAMPION)
        version = _model_version(client, name, number)
        aliases = tuple(alias for alias, one in registered.aliases.items() if str(one) == number)
        return _lineage_of(client, version, aliases)


def params_of(lineage: Lineage) -> str:
    """Return the whole parameter file of a model, credentials masked.

    Raises:
        LineageError: when its run keeps none that can be read.
    """
    if lineage.params_text is None:
        fault = f"{PARAMS_FILE}: {lineage.params_fault}"
        missing = f"must keep {PARAMS_FILE} (got none)"
        raise LineageError(f"run {lineage.run_id}: {fault if lineage.params_fault else missing}")
    return lineage.params_text


def _registered_model(client: "MlflowClient", name: str) -> "RegisteredModel":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if not is_missing(error):
            raise
        known = [model.name for model in client.search_registered_models()]
        raise StoreError(f"{name}: a registered model must be one of: {_listed(known)}") from None


def _version_of(registered: "RegisteredModel", alias: str) -> str:
    if alias not in registered.aliases:
        known = _listed(sorted(registered.aliases))
        raise StoreError(f"{registered.name}@{alias}: the alias must be one of: {known}")
    return str(registered.aliases[alias])


def _model_version(client: "MlflowClient", name: str, number: str) -> "ModelVersion":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(name, number)
    except MlflowException as error:
        if not is_missing(error):
            raise
        versions = client.search_model_versions(f"name = '{name}'")
        known = _listed(sorted(int(one.version) for one in versions))
        raise StoreError(f"{name}/{number}: the version must be one of: {known}") from None


def _lineage_of(client: "MlflowClient", version: "ModelVersion", aliases: Sequence[str]) -> Lineage:
    where = f"{version.name}/{version.version}"
    model = _logged_model(client, where, version)
    run = _run_of(client, where, str(version.run_id or model.source_run_id))
    tags = run.data.tags
    dirty = tags.get(DIRTY_TAG)
    params_text, params_fault = _params_file(client, run.info.run_id)
    return Lineage(
        model=version.name,
        version=int(version.version),
        aliases=tuple(sorted(aliases)),
        family=model.name,
        stage=tags.get(STAGE_TAG, ""),
        run_id=run.info.run_id,
        execution_run_id=tags.get(PARENT_TAG),
        experiment=tags.get("dvc.experiment"),
        commit=tags.get(COMMIT_TAG),
        is_dirty=None if dirty is None else dirty == "true",
        code_diff_sha256=tags.get(CODE_DIFF_TAG),
        preset=tags.get(PRESET_TAG),
        params_text=params_text,
        params_fault=params_fault,
        dataset_sha256=tags.get(DATASET_TAG),
        weights_sha256=model.tags.get("weights_sha256", ""),
        description_sha256=model.tags.get("description_sha256", ""),
        machine={name: tags[tag] for name, tag in MACHINE_TAGS.items() if tag in tags},
    )


def _logged_model(client: "MlflowClient", where: str, version: "ModelVersion") -> "LoggedModel":
    from mlflow.exceptions import MlflowException

    model_id = version.model_id or str(version.source).removeprefix("models:/")
    try:
        return client.get_logged_model(model_id)
    except MlflowException as error:
        if not is_missing(error):
            raise
        raise StoreError(f"{where}: its logged model {model_id} does not exist") from None


def _run_of(client: "MlflowClient", where: str, run_id: str) -> "Run":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if not is_missing(error):
            raise
        raise StoreError(f"{where}: its run {run_id} does not exist") from None


def _params_file(client: "MlflowClient", run_id: str) -> tuple[str | None, str | None]:
    """Return the text of a run's parameter file, or else what it must be; neither without one."""
    files = [file.path for file in client.list_artifacts(run_id) if not file.is_dir]
    if PARAMS_FILE not in files:
        return None, None
    with tempfile.TemporaryDirectory(prefix="diptych-") as folder:
        path = Path(client.download_artifacts(run_id, PARAMS_FILE, folder))
        try:
            read_yaml(path)  # whoever may write to the run may have written anything
        except ParamsError as error:
            return None, str(error).removeprefix(f"{path}:").strip()
        return path.read_text(encoding="utf-8"), None


def _parsed(text: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="diptych-") as folder:
        path = Path(folder, PARAMS_FILE)
        path.write_text(text, encoding="utf-8")
        return read_yaml(path)


def _listed(names: Sequence[object]) -> str:
    return ", ".join(map(str, names)) or "none"
