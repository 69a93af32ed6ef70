"""Models as the gate sees them: figures that follow from their per-image tables."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from diptych.cnn.metrics import expected_calibration_error
from diptych.promotion.params import PromotionParams
from diptych.promotion.record import Family, ModelRecord

NUM_IMAGES = 4000
NUM_CLASSES = 4
POLICY = {
    "prefix": "diptych",
    "min_cnn_accuracy": 0.98,
    "max_cnn_ece": 0.02,
    "max_cnn_nll_nats": 0.1,
    "max_vae_nll_nats": 100.0,
    "min_vae_active_units": 5,
    "max_pair_abstention_share": 0.015,
    "min_pair_novelty_auroc": 0.99,
    "min_pair_novel_abstention_share": 0.9,
    "min_pair_rotated_auroc": 0.6,
    "max_class_accuracy_loss": 0.01,
    "significance_level": 0.05,
    "max_accuracy_loss": 0.002,
    "max_nll_loss_nats": 0.5,
    "num_bootstrap_resamples": 1000,
    "secondary_figure": "num_parameters",
}


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def table(num_images: int = NUM_IMAGES, seed: int = 0) -> pd.DataFrame:
    """Images that all are answered rightly and accepted, with a likelihood about 90 nats."""
    random = np.random.default_rng(seed)
    labels = np.arange(num_images) % NUM_CLASSES
    rate, distortion = 25 + random.normal(size=num_images), 68 + random.normal(size=num_images)
    return pd.DataFrame(
        {
            "label": labels,
            "prediction": labels,
            "confidence": np.full(num_images, 0.999),
            "label_nll_nats": np.full(num_images, 0.001),
            "negative_elbo_nats": rate + distortion,
            "rate_nats": rate,
            "distortion_nats": distortion,
            "nll_nats": rate + distortion - 3,
            "novelty_p_value": np.full(num_images, 0.5),
            "accepted": np.full(num_images, True),
        }
    )


def with_mistakes(images: pd.DataFrame, *places: int) -> pd.DataFrame:
    """The table with wrong predictions at some rows."""
    wrong = images.copy()
    at = list(places)
    wrong.loc[at, "prediction"] = (wrong.loc[at, "label"] + 1) % NUM_CLASSES
    return wrong


def figures_of(images: pd.DataFrame) -> dict[str, float]:
    """What an evaluation says of such images."""
    is_right = (images["prediction"] == images["label"]).to_numpy()
    vae = ("nll_nats", "negative_elbo_nats", "rate_nats", "distortion_nats")
    return {
        "cnn.accuracy": float(is_right.mean()),
        "cnn.ece": expected_calibration_error(
            torch.tensor(images["confidence"].to_numpy(np.float64)), torch.tensor(is_right)
        ),
        "cnn.nll_nats": float(images["label_nll_nats"].mean()),
        "cnn.num_images": float(len(images)),
        **{f"vae.{name}": float(images[name].mean()) for name in vae},
        "vae.active_units": 20.0,
        "vae.num_images": float(len(images)),
        "vae.nll_num_importance_samples": 100.0,
        "vae.binarization_seed": 0.0,
        "pair.abstention_share": 1 - float(images["accepted"].mean()),
        "pair.novelty_auroc.noise": 0.999,
        "pair.novelty_auroc.inverted": 0.998,
        "pair.novelty_auroc.rotated": 0.8,
        "pair.novel_abstention_share.noise": 0.95,
        "pair.novel_abstention_share.inverted": 0.94,
        "pair.novel_abstention_share.rotated": 0.3,
        "num_parameters": 1000.0,
    }


def record(
    family: Family, images: pd.DataFrame, name: str = "candidate", **changes: Any
) -> ModelRecord:
    """A model that is what it says, with such results; changes are of the record's fields."""
    sound = ModelRecord(
        family=family,
        version=None,
        run_id="run",
        model_id="model",
        model_status="READY",
        weights_sha256=digest(name),
        stored_weights_sha256=digest(name),
        description_sha256=digest(f"{name}'s description"),
        stored_description_sha256=digest(f"{name}'s description"),
        image_shape=(1, 28, 28),
        dataset_sha256=digest("data set"),
        test_sha256=digest("test set"),
        is_dirty=False,
        figures=figures_of(images),
        per_image=images,
    )
    return replace(sound, **changes)


def with_figures(model: ModelRecord, **changes: float) -> ModelRecord:
    """The model with some figures changed; a dot in a key is written `__`."""
    changed = {key.replace("__", "."): value for key, value in changes.items()}
    return replace(model, figures={**model.figures, **changed})


@pytest.fixture(scope="session")
def policy() -> PromotionParams:
    return PromotionParams.model_validate(POLICY)


@pytest.fixture(scope="session")
def policy_with() -> Callable[..., PromotionParams]:
    """The policy with changes."""
    return lambda **changes: PromotionParams.model_validate({**POLICY, **changes})
