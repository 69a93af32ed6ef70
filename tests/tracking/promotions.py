"""Stores with finished pipeline executions to promote from, and writers that die."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from diptych.checkpoints import save_model
from diptych.cnn.metrics import expected_calibration_error
from diptych.cnn.model import build_cnn
from diptych.cnn.params import CnnTrainingParams
from diptych.files import write_parquet
from diptych.images.arrays import load_description, load_image_set
from diptych.models import save_pair
from diptych.novelty import fit_novelty
from diptych.pair.params import PairParams
from diptych.promotion.params import PromotionParams
from diptych.tracking.moves import settle
from diptych.tracking.promoting import Request, promote, roll_back
from diptych.tracking.recorder import identity_tags
from diptych.tracking.reevaluation import evaluate_anew
from diptych.tracking.registrar import Registrar
from diptych.tracking.registry import RegistryError
from diptych.tracking.store import ARTIFACT_FOLDER, DATABASE_FILE
from diptych.vae.model import build_vae
from diptych.vae.params import VaeTrainingParams
from tests.conftest import CNN, VAE
from tests.promotion.conftest import table, with_mistakes
from tests.stages.conftest import NUM_IMAGES, PROCESSED, write_images, write_params

EXPERIMENT = "diptych"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
POLICY: Mapping[str, Any] = {
    "prefix": "diptych",
    "min_cnn_accuracy": 0.3,
    "max_cnn_ece": 1.0,
    "max_cnn_nll_nats": 10.0,
    "max_vae_nll_nats": 1000.0,
    "min_vae_active_units": 0,
    "max_pair_abstention_share": 1.0,
    "min_pair_novelty_auroc": 0.0,
    "min_pair_novel_abstention_share": 0.0,
    "min_pair_rotated_auroc": 0.0,
    "max_class_accuracy_loss": 1.0,
    "significance_level": 0.05,
    "max_accuracy_loss": 0.002,
    "max_nll_loss_nats": 0.5,
    "num_bootstrap_resamples": 1000,
    "secondary_figure": "num_parameters",
}


@dataclass(frozen=True)
class Execution:
    """Runs of one pipeline execution and its logged models, by family."""

    run_id: str
    runs: Mapping[str, str]
    models: Mapping[str, str]


@dataclass(frozen=True)
class Project:
    """A project with a store and what is recorded in it.

    Attributes:
        root: Holds params.yaml and data/processed.
        uri: Of the store.
        executions: By name, oldest first.
    """

    root: Path
    uri: str
    executions: Mapping[str, Execution]

    @property
    def client(self) -> Any:
        import mlflow

        return mlflow.MlflowClient(tracking_uri=self.uri)

    def registrar(self, client: Any = None, **changes: Any) -> Registrar:
        """What works on the store; changes are of its fields."""
        fields = {
            "client": client or self.client,
            "experiment": EXPERIMENT,
            "policy": PromotionParams.model_validate(POLICY),
            "notice": print,
            "patience_seconds": 60.0,
        }
        return Registrar(**{**fields, **changes})

    def evaluate(self, family: Any, folder: Path, protocol: Mapping[str, float]) -> Any:
        params = self.root / "params.yaml"
        return evaluate_anew(family, folder, self.root / PROCESSED, params, protocol)


Copier = Callable[[str], Project]
"""Makes a project with a store of its own, by a name."""


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Project:
    """A project with three executions, the newest the worst. Not to change."""
    root = tmp_path_factory.mktemp("recorded")
    (root / ".dvc").mkdir()
    write_params(root, {"promotion": POLICY})
    write_images(root, (1, 12, 12))
    shutil.copy(empty_database, root / DATABASE_FILE)
    project = Project(root, f"sqlite:///{root / DATABASE_FILE}", {})
    results = {"plain": (15, 90.0), "better": (3, 80.0), "worse": (18, 95.0)}
    executions = {
        name: add_execution(project.client, root / PROCESSED, root / name, images_of(*result), seed)
        for seed, (name, result) in enumerate(results.items())
    }
    return Project(root, project.uri, executions)


@pytest.fixture
def copied(recorded: Project, tmp_path: Path) -> Copier:
    """Copies the project's store and parameters; the recorded artifacts are shared."""

    def copy(name: str) -> Project:
        root = tmp_path / name
        (root / ".dvc").mkdir(parents=True)
        for file in ("params.yaml", DATABASE_FILE):
            shutil.copy(recorded.root / file, root)
        return Project(root, f"sqlite:///{root / DATABASE_FILE}", recorded.executions)

    return copy


def images_of(num_mistakes: int, nats: float) -> pd.DataFrame:
    """Results on the test set: so many images wrong, a likelihood about so many nats."""
    images = table(NUM_IMAGES["test"])
    images["label"] = images["prediction"] = np.arange(len(images)) % 3
    for name in ("negative_elbo_nats", "distortion_nats", "nll_nats"):
        images[name] += nats - 90
    return with_mistakes(images, *range(num_mistakes))


def add_execution(
    client: Any,
    processed: Path,
    folder: Path,
    images: pd.DataFrame,
    seed: int,
    is_dirty: bool = False,
    statuses: Mapping[str, str] | None = None,
) -> Execution:
    """Record an execution whose models have been evaluated with such results.

    Args:
        client: An MlflowClient.
        processed: The data set.
        folder: A new one, for files.
        images: The per-image table.
        seed: Of the weights.
        is_dirty: Whether the code had changes.
        statuses: Of the logged models that are not READY, by family.
    """
    experiment = client.get_experiment_by_name(EXPERIMENT)
    is_local = client.tracking_uri.startswith("sqlite:")
    location = (folder.parent / ARTIFACT_FOLDER).as_uri() if is_local else None
    experiment_id = (
        experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT, location)
    )
    tags = {
        "mlflow.source.git.commit": COMMIT,
        "diptych.git_dirty": str(is_dirty).lower(),
    }
    parent = client.create_run(experiment_id, tags={**tags, "diptych.execution": f"e{seed}"})
    folders = _models(processed, folder, seed)
    runs, models = {}, {}
    for family, stage in (("cnn", "train_cnn"), ("vae", "train_vae"), ("pair", "evaluate")):
        child = {**tags, "diptych.stage": stage, "mlflow.parentRunId": parent.info.run_id}
        run_id = client.create_run(experiment_id, tags=child).info.run_id
        runs[stage] = run_id
        status = (statuses or {}).get(family, "READY")
        models[family] = _log_model(client, experiment_id, run_id, folders[family], family, status)
        if stage == "evaluate":
            _log_evaluation(client, run_id, folder, images, processed)
        client.set_terminated(run_id)
    client.set_terminated(parent.info.run_id)
    return Execution(parent.info.run_id, runs, models)


def _models(processed: Path, folder: Path, seed: int) -> dict[str, Path]:
    dataset = load_description(processed)
    torch.manual_seed(seed)
    classifier = build_cnn(
        CnnTrainingParams.model_validate(CNN),
        dataset.image_shape,
        len(dataset.class_names),
        dataset.pixel_mean,
        dataset.pixel_standard_deviation,
    )
    autoencoder = build_vae(VaeTrainingParams.model_validate(VAE), dataset.image_shape).eval()
    validation = load_image_set(processed, "validation", dataset)
    reference = fit_novelty(autoencoder, torch.from_numpy(np.array(validation.images)), seed)
    states = {
        "cnn": classifier.state_dict(),
        "vae": {**autoencoder.state_dict(), **reference.state()},
    }
    for family, params in (("cnn", CNN), ("vae", VAE)):
        description = {
            "family": family,
            "params": params,
            "image_shape": list(dataset.image_shape),
            "class_names": list(dataset.class_names),
            "pixel_mean": list(dataset.pixel_mean),
            "pixel_standard_deviation": list(dataset.pixel_standard_deviation),
            "fingerprints": {
                "dataset": dataset.name,
                "dataset_sha256": dataset.digest,
                "params_sha256": "0" * 64,
            },
        }
        save_model(folder / family, states[family], description)
    save_pair(folder / "pair", folder / "cnn", folder / "vae", PairParams(abstention_level=0.01))
    return {family: folder / family for family in ("cnn", "vae", "pair")}


def _log_model(
    client: Any, experiment_id: str, run_id: str, folder: Path, family: str, status: str
) -> str:
    description = json.loads((folder / "model.json").read_text())
    model = client.create_logged_model(
        experiment_id, name=family, source_run_id=run_id, tags=identity_tags(description)
    )
    client.log_model_artifacts(model.model_id, str(folder), f"data/{family}")
    if status != "PENDING":
        client.finalize_logged_model(model.model_id, status)
    return str(model.model_id)


def _log_evaluation(
    client: Any,
    run_id: str,
    folder: Path,
    images: pd.DataFrame,
    processed: Path,
) -> None:
    figures = _figures_of(images)
    digest = load_description(processed).test.digest
    content = json.dumps({"dataset": "stripes", "test_sha256": digest, **figures})
    (folder / "evaluate.json").write_text(content)
    write_parquet(folder / "per_image.parquet", images)
    for name in ("evaluate.json", "per_image.parquet"):
        client.log_artifact(run_id, str(folder / name), "evaluation")


def _figures_of(images: pd.DataFrame) -> dict[str, float]:
    is_right = torch.tensor((images["prediction"] == images["label"]).tolist())
    confidence = torch.tensor(images["confidence"].tolist(), dtype=torch.float64)
    means = ("nll_nats", "negative_elbo_nats", "rate_nats", "distortion_nats")
    return {
        "cnn.accuracy": is_right.double().mean().item(),
        "cnn.ece": expected_calibration_error(confidence, is_right),
        "cnn.nll_nats": float(images["label_nll_nats"].mean()),
        "cnn.num_images": len(images),
        **{f"vae.{name}": float(images[name].mean()) for name in means},
        "vae.active_units": 3,
        "vae.num_images": len(images),
        "vae.nll_num_importance_samples": 2,
        "vae.binarization_seed": 0,
        "pair.abstention_share": 1 - float(images["accepted"].mean()),
        "pair.novelty_auroc.noise": 0.999,
        "pair.novelty_auroc.inverted": 0.998,
        "pair.novelty_auroc.rotated": 0.8,
        "pair.novel_abstention_share.noise": 0.95,
        "pair.novel_abstention_share.inverted": 0.94,
        "pair.novel_abstention_share.rotated": 0.3,
    }


class Death(BaseException):
    """The process is no more."""


class DyingClient:
    """An MlflowClient of a process that dies when it is about to write for the n-th time."""

    def __init__(self, client: Any, num_writes: int, die: Callable[[], None]) -> None:
        self._client = client
        self._num_writes = num_writes
        self._die = die

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not name.startswith(("create_", "set_", "delete_", "log_", "update_")):
            return found
        self._num_writes -= 1
        if self._num_writes < 0:
            self._die()
        return found


class _DeadClient(DyingClient):
    """One whose process goes on: its lock is that of a dead process all the same."""

    def create_registered_model(self, name: str, tags: Mapping[str, str] | None = None) -> Any:
        dead = {**tags, "process": f"{tags['process'].rpartition('/')[0]}/dead"} if tags else None
        return self.__getattr__("create_registered_model")(name, dead)


def dying(client: Any, num_writes: int) -> DyingClient:
    """A client that raises Death in place of its n-th write, and of every later one."""

    def die() -> None:
        raise Death

    return _DeadClient(client, num_writes, die)


def complete(project: Project, notice: Callable[[str], None] = print) -> None:
    """Complete what was interrupted, as every promotion and rollback does first."""
    registrar = project.registrar(notice=notice)
    registry = registrar.registry("cnn")
    with registrar.lock(registry) as raise_if_lost:
        settle(registry, raise_if_lost, notice)


def act_and_exit(project: Project, action: str, num_writes: int) -> None:
    """Promote (by an execution's name) or roll back until a write; then end: a process's target."""
    client = DyingClient(project.client, num_writes, lambda: os._exit(9))
    act(project.registrar(client), project, action)


def act(registrar: Registrar, project: Project, action: str) -> None:
    """Promote (by an execution's name) or roll back, where having to leave it is no error."""
    if action != "rollback":
        request = Request(run_id=project.executions[action].run_id)
        promote(registrar, "cnn", request, project.evaluate)
        return
    try:
        roll_back(registrar, "cnn")
    except RegistryError as error:
        if "to roll back to" not in str(error) and "nothing was rolled back" not in str(error):
            raise
