"""Where a registered model comes from, and what makes it again."""

import re
import shlex
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, get_args

from diptych.errors import UserError
from diptych.machine import num_cores
from diptych.model_files import MODEL_FILE
from diptych.params import dotted, load_params, read_yaml
from diptych.presets import CUSTOM, DEFAULT, Change
from diptych.promotion.params import PromotionParams
from diptych.promotion.record import Family
from diptych.tracking.client import StoreError, connect, failures_in_one_line, is_missing
from diptych.tracking.dataset_inputs import DATASET_TAG
from diptych.tracking.pipeline import PARAMS_FILE, PIPELINE_FILE, read_stages
from diptych.tracking.provenance import compute_tags
from diptych.tracking.store import Store

_MODEL = re.compile(r"(?P<name>[^@/]+)(@(?P<alias>[^@/]+)|/(?P<version>[0-9]+))?")
_CHAMPION = "champion"
_MASK = "***"
_MACHINE = {
    "CPU": "diptych.cpu",
    "GPU": "diptych.gpu",
    "device": "diptych.device",
    "precision": "diptych.precision",
    "threads": "diptych.num_threads",
    "platform": "diptych.platform",
    "Python": "diptych.python",
    "torch": "diptych.version.torch",
}


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
        params_text: The whole parameter file, credentials masked.
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
    dataset_sha256: str | None
    weights_sha256: str
    description_sha256: str
    machine: Mapping[str, str]

    @property
    def params(self) -> dict[str, Any]:
        """All parameters, under dotted keys; none if the file is missing."""
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
        number = parts["version"] or _version_of(registered, parts["alias"] or _CHAMPION)
        version = _model_version(client, name, number)
        aliases = tuple(alias for alias, one in registered.aliases.items() if str(one) == number)
        return _lineage_of(client, version, aliases)


def changed_params(lineage: Lineage, workspace: Path) -> list[Change] | None:
    """Return the parameters in which a model differs from its preset, or else from the default.

    Args:
        lineage: The model's.
        workspace: A checkout of the project; the preset is taken as its commit had it.

    Returns:
        Those with another value, the preset's as the old one; None when git does not have the
        commit, or the parameters are not recorded.
    """
    if lineage.commit is None or lineage.params_text is None:
        return None
    preset = _compared_preset(lineage)
    expected: dict[str, Any] = {}
    for file in (PARAMS_FILE, f"presets/{DEFAULT}.yaml", f"presets/{preset}.yaml"):
        content = _at_commit(workspace, lineage.commit, file)
        if content is None:
            return None
        expected |= dotted(content)
    return [
        Change(key, expected.get(key), value)
        for key, value in lineage.params.items()
        if key not in expected or expected[key] != value
    ]


def reproducing_commands(lineage: Lineage, workspace: Path) -> list[str]:
    """Return the commands that make a model again, to be run in a checkout of the project.

    Args:
        lineage: The model's.
        workspace: The checkout.

    Returns:
        None of them when commit or parameters are not recorded. The last ones succeed if the
        model is the same.

    Raises:
        ParamsError: when the checkout's dvc.yaml cannot be read.
    """
    if lineage.commit is None or lineage.params_text is None:
        return []
    outs = [
        out
        for stage in read_stages(workspace / PIPELINE_FILE)
        if stage.name == lineage.stage
        for out in stage.outs
        if PurePosixPath(out).name == lineage.family
    ]
    digests = lineage.description_sha256, lineage.weights_sha256
    folder = shlex.quote(f"../{lineage.model}-{lineage.version}")
    model = shlex.quote(f"{lineage.model}/{lineage.version}")
    return [
        f"git worktree add --detach {folder} {lineage.commit}",
        f"diptych lineage {model} --params > {folder}/{PARAMS_FILE}",
        f"cd {folder}",
        "make setup",
        "source .venv/bin/activate",
        f"dvc repro {lineage.stage}",
        *(f"grep {digest} {out}/{MODEL_FILE}" for out in outs for digest in digests if digest),
    ]


def caveats(lineage: Lineage) -> list[str]:
    """Return what stands in the way of making a model again, a line each."""
    params, found = lineage.params, []
    if lineage.commit is None:
        found.append("no git commit was recorded: there is nothing to check out")
    elif lineage.is_dirty:
        changes = f" (sha256 of the changes: {lineage.code_diff_sha256})"
        found.append(
            "the code had changes that are not in the commit"
            f"{changes if lineage.code_diff_sha256 else ''}: "
            "the commit alone does not reproduce it"
        )
    if lineage.params_text is None:
        found.append(f"run {lineage.run_id} keeps no {PARAMS_FILE}")
    masked = [key for key, value in params.items() if _MASK in str(value)]
    if masked:
        found.append(f"credentials in {', '.join(masked)} were not kept: put them back for {_MASK}")
    return found + _compute_caveats(params, lineage.machine)


def lineage_as_json(lineage: Lineage, workspace: Path) -> dict[str, Any]:
    """Return all there is to say about a model's origin as JSON values."""
    fields = asdict(lineage)
    del fields["params_text"]
    return {
        **fields,
        "aliases": list(lineage.aliases),
        "machine": dict(lineage.machine),
        "params": lineage.params,
        "commands": reproducing_commands(lineage, workspace),
        "caveats": caveats(lineage),
    }


def lineage_lines(lineage: Lineage, workspace: Path) -> list[str]:
    """Return all there is to say about a model's origin, for people.

    Args:
        lineage: The model's.
        workspace: A checkout of the project, from which its commands start.
    """
    aliases = f" ({', '.join(lineage.aliases)})" if lineage.aliases else ""
    state = {None: "", True: ", with changes", False: ", clean"}[lineage.is_dirty]
    execution = f" of {lineage.execution_run_id}" if lineage.execution_run_id else ""
    facts = {
        "model": f"{lineage.model}, version {lineage.version}{aliases}",
        "weights": lineage.weights_sha256,
        "description": lineage.description_sha256,
        "data": lineage.dataset_sha256,
        "commit": lineage.commit and f"{lineage.commit}{state}",
        "experiment": lineage.experiment,
        "run": f"{lineage.run_id} ({lineage.stage}){execution}",
        "machine": ", ".join(f"{name} {value}" for name, value in lineage.machine.items()),
        "preset": lineage.preset,
    }
    lines = [f"{name:<11} {value}" for name, value in facts.items() if value]
    changes = changed_params(lineage, workspace) or []
    preset = _compared_preset(lineage)
    lines += [f"{'params':<11} {one.key}: {one.new} ({preset}: {one.old})" for one in changes]
    lines += [f"{'caveat':<11} {one}" for one in caveats(lineage)]
    if commands := reproducing_commands(lineage, workspace):
        lines += ["", "To make it again (the last commands fail unless the model is the same):"]
        lines += [f"  {command}" for command in commands]
    return lines


def params_of(lineage: Lineage) -> str:
    """Return the whole parameter file of a model, credentials masked.

    Raises:
        LineageError: when its run keeps none.
    """
    if lineage.params_text is None:
        raise LineageError(f"run {lineage.run_id}: must keep {PARAMS_FILE} (got none)")
    return lineage.params_text


def _compared_preset(lineage: Lineage) -> str:
    return DEFAULT if lineage.preset in (None, CUSTOM) else str(lineage.preset)


def _compute_caveats(params: Mapping[str, Any], machine: Mapping[str, str]) -> list[str]:
    """Tell where `auto` stood for something else than it does here."""
    names = {"device": "device", "precision": "precision", "num_threads": "threads"}
    there = {
        key: machine[name]
        for key, name in names.items()
        if params.get(f"compute.{key}") == "auto" and name in machine
    }
    here = {"num_threads": str(num_cores())}
    if there.keys() - here.keys():  # torch knows, and takes seconds to import
        tags = compute_tags({**params, "compute.num_threads": "auto"})  # whatever there is
        here |= {key: tags[_MACHINE[key]] for key in there if _MACHINE.get(key) in tags}
    return [
        f"compute.{key}: auto stood for {value} there and is {here[key]} here: "
        "the last bits will differ"
        for key, value in there.items()
        if here.get(key, value) != value
    ]


def _registered_model(client: Any, name: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if not is_missing(error):
            raise
        known = [model.name for model in client.search_registered_models()]
        raise StoreError(f"{name}: a registered model must be one of: {_listed(known)}") from None


def _version_of(registered: Any, alias: str) -> str:
    if alias not in registered.aliases:
        known = _listed(sorted(registered.aliases))
        raise StoreError(f"{registered.name}@{alias}: the alias must be one of: {known}")
    return str(registered.aliases[alias])


def _model_version(client: Any, name: str, number: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(name, number)
    except MlflowException as error:
        if not is_missing(error):
            raise
        versions = client.search_model_versions(f"name = '{name}'")
        known = _listed(sorted(int(one.version) for one in versions))
        raise StoreError(f"{name}/{number}: the version must be one of: {known}") from None


def _lineage_of(client: Any, version: Any, aliases: Sequence[str]) -> Lineage:
    where = f"{version.name}/{version.version}"
    model = _logged_model(client, where, version)
    run = _run_of(client, where, version.run_id or model.source_run_id)
    tags = run.data.tags
    dirty = tags.get("diptych.git_dirty")
    return Lineage(
        model=version.name,
        version=int(version.version),
        aliases=tuple(sorted(aliases)),
        family=model.name,
        stage=tags.get("diptych.stage", ""),
        run_id=run.info.run_id,
        execution_run_id=tags.get("mlflow.parentRunId"),
        experiment=tags.get("dvc.experiment"),
        commit=tags.get("mlflow.source.git.commit"),
        is_dirty=None if dirty is None else dirty == "true",
        code_diff_sha256=tags.get("diptych.code_diff_sha256"),
        preset=tags.get("diptych.preset"),
        params_text=_params_text(client, run.info.run_id),
        dataset_sha256=tags.get(DATASET_TAG),
        weights_sha256=model.tags.get("weights_sha256", ""),
        description_sha256=model.tags.get("description_sha256", ""),
        machine={name: tags[tag] for name, tag in _MACHINE.items() if tag in tags},
    )


def _logged_model(client: Any, where: str, version: Any) -> Any:
    from mlflow.exceptions import MlflowException

    model_id = version.model_id or str(version.source).removeprefix("models:/")
    try:
        return client.get_logged_model(model_id)
    except MlflowException as error:
        if not is_missing(error):
            raise
        raise StoreError(f"{where}: its logged model {model_id} does not exist") from None


def _run_of(client: Any, where: str, run_id: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if not is_missing(error):
            raise
        raise StoreError(f"{where}: its run {run_id} does not exist") from None


def _params_text(client: Any, run_id: str) -> str | None:
    if PARAMS_FILE not in [file.path for file in client.list_artifacts(run_id)]:
        return None
    with tempfile.TemporaryDirectory(prefix="diptych-") as folder:
        path = client.download_artifacts(run_id, PARAMS_FILE, folder)
        return Path(path).read_text(encoding="utf-8")


def _parsed(text: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="diptych-") as folder:
        path = Path(folder, PARAMS_FILE)
        path.write_text(text, encoding="utf-8")
        return read_yaml(path)


def _at_commit(workspace: Path, commit: str, file: str) -> dict[str, Any] | None:
    """Return a YAML file as a commit has it; None when git does not have it."""
    command = ["git", "-C", str(workspace), "show", f"{commit}:./{file}"]
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        return _parsed(done.stdout)
    return None


def _listed(names: Sequence[object]) -> str:
    return ", ".join(map(str, names)) or "none"
