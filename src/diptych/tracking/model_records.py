"""What the gate looks at, read from the store: weights are hashed before anything is parsed."""

import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass, replace
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
from diptych.promotion.comparison import needs_evaluation, protocol_of
from diptych.promotion.params import PromotionParams
from diptych.promotion.record import Family, ModelRecord
from diptych.tracking.client import StoreError
from diptych.tracking.figures import numeric_figures
from diptych.tracking.origins import Origin

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

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


Evaluator = Callable[[Family, Path, Mapping[str, float]], Evaluation]
"""Evaluates the model in a folder on the test set that is at hand; where the last argument has one
of the keys of `diptych.promotion.comparison.PROTOCOL`, by that value."""


def read_record(client: "MlflowClient", family: Family, origin: Origin) -> ModelRecord:
    """Read all that the gate has to know about a candidate.

    Args:
        client: Of the store.
        family: The model's.
        origin: Where it comes from.

    Raises:
        StoreError: when its figures are not stored.
        FileError: when they are damaged.
    """
    with tempfile.TemporaryDirectory(prefix="diptych-") as temporary:
        evaluation = _stored_evaluation(client, origin, Path(temporary))
        if evaluation is None:
            run_id = origin.evaluation_run_id
            raise StoreError(f"run {run_id}: must have the artifact {FIGURES_FILE} (got none)")
        folder = download_model(client, origin.model, Path(temporary, "model"))
        return _record_of(family, origin, folder, evaluation)


def read_champion(
    client: "MlflowClient",
    origin: Origin,
    candidate: ModelRecord,
    policy: PromotionParams,
    evaluate: Evaluator,
) -> ModelRecord:
    """Read all that the gate has to know about the champion that a candidate is compared with.

    Args:
        client: Of the store.
        origin: Where the champion comes from.
        candidate: Of the champion's family.
        policy: What the gate demands.
        evaluate: Called when the champion's results are not stored, or cannot be compared with the
            candidate's.

    Returns:
        What is stored, where that will do: for a candidate that is refused in any case, and of a
        champion that is damaged, of which the gate says so.

    Raises:
        UserError: when it cannot be evaluated.
    """
    family = candidate.family
    with tempfile.TemporaryDirectory(prefix="diptych-") as temporary:
        folder = download_model(client, origin.model, Path(temporary, "model"))
        stored = None
        with suppress(FileError):  # of damaged figures, as of none
            stored = _stored_evaluation(client, origin, Path(temporary))
        # Which test set it would be evaluated on, nobody knows before.
        assumed = stored or Evaluation({}, None, candidate.test_sha256)
        champion = _record_of(family, origin, folder, assumed)
        if (
            folder is not None
            and champion.is_intact
            and needs_evaluation(champion, candidate, policy)
        ):
            evaluation = evaluate(family, folder, protocol_of(candidate))
            return _record_of(family, origin, folder, evaluation)
        return champion if stored else replace(champion, test_sha256="")


def _record_of(
    family: Family, origin: Origin, folder: Path | None, evaluation: Evaluation
) -> ModelRecord:
    tagged, stored = digests_of(origin.model.tags), digests_in(folder, family)
    is_sound = folder is not None and tagged.are_known and stored == tagged
    sizes = _sizes_of(folder, family) if folder and is_sound else {}
    description = _description_in(folder)
    return ModelRecord(
        family=family,
        version=None,
        run_id=origin.run_id,
        model_id=origin.model.model_id,
        model_status=str(origin.model.status),
        weights_sha256=tagged.weights_sha256,
        stored_weights_sha256=stored.weights_sha256,
        description_sha256=tagged.description_sha256,
        stored_description_sha256=stored.description_sha256,
        image_shape=_image_shape_in(description),
        dataset_sha256=_dataset_sha256_in(description),
        test_sha256=evaluation.test_sha256,
        is_dirty=origin.is_dirty,
        figures={**evaluation.figures, **sizes},
        per_image=evaluation.per_image,
    )


def download_model(client: "MlflowClient", model: "LoggedModel", target: Path) -> Path | None:
    """Fetch a logged model and return its canonical folder; None when the store has no such files.

    Args:
        client: Of the store.
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


def _stored_evaluation(client: "MlflowClient", origin: Origin, target: Path) -> Evaluation | None:
    run_id = origin.evaluation_run_id
    path = run_id and _download(client, run_id, FIGURES_FILE, target)
    if not run_id or not path:
        return None
    content = read_json(path)
    return Evaluation(
        figures=numeric_figures(content),
        per_image=_read_table(_download(client, run_id, PER_IMAGE_FILE, target)),
        test_sha256=str(content.get("test_sha256", "")),
    )


def _download(client: "MlflowClient", run_id: str, path: str, target: Path) -> Path | None:
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


def _description_in(folder: Path | None) -> dict[str, Any]:
    """Return what model.json says, whether it is right or not; nothing if it cannot be read."""
    try:
        return {} if folder is None else read_json(folder / MODEL_FILE)
    except FileError:
        return {}


def _dataset_sha256_in(description: Mapping[str, Any]) -> str:
    prints = description.get("fingerprints")
    return str(prints.get("dataset_sha256", "")) if isinstance(prints, dict) else ""


def _image_shape_in(description: Mapping[str, Any]) -> tuple[int, int, int] | None:
    match description.get("image_shape"):
        case [int(channels), int(height), int(width)]:
            return channels, height, width
    return None
