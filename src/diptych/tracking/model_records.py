"""What the gate looks at, read from the store: weights are hashed before anything is parsed."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.files import FileError, read_json, sha256_of
from diptych.model_files import (
    DIGESTS,
    MODEL_FILE,
    WEIGHTS_FILE,
    CheckpointError,
    load_model_description,
)
from diptych.promotion.record import Family, ModelRecord
from diptych.tracking.client import StoreError
from diptych.tracking.figures import numbers
from diptych.tracking.origins import Origin

if TYPE_CHECKING:
    import pandas as pd

FIGURES_FILE = "evaluation/evaluate.json"
PER_IMAGE_FILE = "evaluation/per_image.parquet"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A model on a test set.

    Attributes:
        figures: Under dotted keys.
        per_image: One row per image; None if not stored.
        test_sha256: Of the test set.
    """

    figures: dict[str, float]
    per_image: "pd.DataFrame | None"
    test_sha256: str


Evaluator = Callable[[Family, Path], Evaluation]
"""Evaluates the model in a folder on the test set that is at hand."""


def read_record(
    client: Any, family: Family, origin: Origin, version: int | None, evaluate: Evaluator | None
) -> ModelRecord:
    """Read all that the gate has to know about a model.

    Args:
        client: An MlflowClient.
        family: The model's.
        origin: Where it comes from.
        version: Its number in the registry, if it has one.
        evaluate: Called when its per-image results are not stored; None to go without.

    Raises:
        StoreError: when its figures are not stored and it is not to be evaluated.
        FileError: when figures, or the weights of a model to be evaluated, are damaged.
    """
    with tempfile.TemporaryDirectory(prefix="diptych-") as temporary:
        folder = download_model(client, origin.model, Path(temporary, "model"))
        stored = digests_in(folder, family)
        tagged = digests_of(origin.model.tags)
        is_sound = folder is not None and tagged.are_known and stored == tagged
        evaluation = _stored_evaluation(client, origin, Path(temporary), is_demanded=not evaluate)
        if evaluate and (evaluation is None or evaluation.per_image is None):
            if folder is None or not is_sound:
                raise StoreError(
                    f"model {origin.model.model_id}: to be evaluated its files must have "
                    f"{tagged.shown()} (got {stored.shown()})"
                )
            evaluation = evaluate(family, folder)
        assert evaluation is not None, "it was read, evaluated or raised about"  # noqa: S101
        sizes = _sizes_of(folder, family) if folder and is_sound else {}
        dataset_sha256 = _dataset_sha256(folder) if folder else ""
    return ModelRecord(
        family=family,
        version=version,
        run_id=origin.run_id,
        model_id=origin.model.model_id,
        model_status=str(origin.model.status),
        weights_sha256=tagged.weights_sha256,
        stored_weights_sha256=stored.weights_sha256,
        description_sha256=tagged.description_sha256,
        stored_description_sha256=stored.description_sha256,
        dataset_sha256=dataset_sha256,
        test_sha256=evaluation.test_sha256,
        is_dirty=origin.is_dirty,
        figures={**evaluation.figures, **sizes},
        per_image=evaluation.per_image,
    )


def download_model(client: Any, model: Any, target: Path) -> Path | None:
    """Fetch a logged model and return its canonical folder; None when the store has no such files.

    Args:
        client: An MlflowClient.
        model: The logged model.
        target: A folder to make.
    """
    import mlflow.artifacts

    if not client.list_logged_model_artifacts(model.model_id):
        return None
    mlflow.artifacts.download_artifacts(
        artifact_uri=model.artifact_location,
        dst_path=str(target),
        tracking_uri=client.tracking_uri,
    )
    # The outermost: a pair's folder holds those of its members.
    found = sorted(target.rglob(MODEL_FILE), key=lambda path: len(path.parts))
    return found[0].parent if found else None


@dataclass(frozen=True, slots=True)
class Digests:
    """What identifies a model.

    Attributes:
        weights_sha256: Of its weights; empty if some are missing.
        description_sha256: Of the rest; empty if it is missing or damaged.
    """

    weights_sha256: str
    description_sha256: str

    @property
    def are_known(self) -> bool:
        """Tell whether both are there."""
        return bool(self.weights_sha256 and self.description_sha256)

    def shown(self) -> str:
        """Return both for a message."""
        weights, description = (one or "none" for one in astuple(self))
        return f"weights {weights}, description {description}"


def digests_of(tags: Mapping[str, str]) -> Digests:
    """Return what the tags of a logged model or a version say."""
    return Digests(*(tags.get(key, "") for key in DIGESTS))


def digests_in(folder: Path | None, family: Family) -> Digests:
    """Return what the files in a folder say; nothing but a JSON file is parsed."""
    if folder is None:
        return Digests("", "")
    return Digests(_weights_sha256_in(folder, family), _description_sha256_in(folder, family))


def check_folder(where: str, tags: Mapping[str, str], folder: Path | None, family: Family) -> Path:
    """Return the folder of a registered model, if its files are those that were registered.

    Args:
        where: Names the version, for the message.
        tags: The version's.
        folder: As `download_model` returns it.
        family: The model's.

    Raises:
        StoreError: when they are not, or nobody knows.
    """
    expected, found = digests_of(tags), digests_in(folder, family)
    if not expected.are_known:
        raise StoreError(
            f"{where}: must have tags with both digests (got {expected.shown()}): promote it anew"
        )
    if folder is None or found != expected:
        raise StoreError(f"{where}: must have {expected.shown()} (got {found.shown()})")
    return folder


def _weights_sha256_in(folder: Path, family: Family) -> str:
    from diptych.models import MEMBERS, pair_sha256

    try:
        if family != "pair":
            return sha256_of(folder / WEIGHTS_FILE)
        return pair_sha256({one: sha256_of(folder / one / WEIGHTS_FILE) for one in MEMBERS})
    except OSError:
        return ""


def _description_sha256_in(folder: Path, family: Family) -> str:
    from diptych.models import MEMBERS

    try:
        description = load_model_description(folder)
        if family == "pair":
            members = {one: load_model_description(folder / one) for one in MEMBERS}
            found = {one: described["description_sha256"] for one, described in members.items()}
            if found != description.get("member_descriptions"):
                return ""
    except CheckpointError:
        return ""
    return str(description["description_sha256"])


def _stored_evaluation(
    client: Any, origin: Origin, target: Path, is_demanded: bool
) -> Evaluation | None:
    run_id = origin.evaluation_run_id
    path = run_id and _download(client, run_id, FIGURES_FILE, target)
    if not run_id or not path:
        if is_demanded:
            raise StoreError(f"run {run_id}: must have the artifact {FIGURES_FILE} (got none)")
        return None
    content = read_json(path)
    return Evaluation(
        figures=numbers(content),
        per_image=_read_table(_download(client, run_id, PER_IMAGE_FILE, target)),
        test_sha256=str(content.get("test_sha256", "")),
    )


def _download(client: Any, run_id: str, path: str, target: Path) -> Path | None:
    folder = path.rpartition("/")[0]
    if path not in [file.path for file in client.list_artifacts(run_id, folder)]:
        return None
    return Path(client.download_artifacts(run_id, path, str(target)))


def _read_table(path: Path | None) -> "pd.DataFrame | None":
    import pandas as pd
    import pyarrow as pa

    try:
        return None if path is None else pd.read_parquet(path)
    except (
        OSError,
        ValueError,
        pa.ArrowException,
    ):  # not a table: the gate says that none is there
        return None


def _sizes_of(folder: Path, family: Family) -> dict[str, float]:
    """Return the model's number of parameters, none if this version of the code cannot load it."""
    from diptych.models import load_cnn, load_vae

    members = {"cnn": load_cnn, "vae": load_vae}
    wanted = members if family == "pair" else {family: members[family]}
    try:
        models = [
            load(folder / one if family == "pair" else folder) for one, load in wanted.items()
        ]
    except CheckpointError:
        return {}
    return {"num_parameters": float(sum(p.numel() for one in models for p in one.parameters()))}


def _dataset_sha256(folder: Path) -> str:
    try:
        prints = read_json(folder / MODEL_FILE).get("fingerprints")
    except FileError:
        return ""
    return str(prints.get("dataset_sha256", "")) if isinstance(prints, dict) else ""
