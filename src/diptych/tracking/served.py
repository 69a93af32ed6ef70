"""The loader of logged models: `mlflow.pyfunc.load_model` and `mlflow models serve` call it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from diptych.cnn.model import Cnn
from diptych.images.batches import to_unit_interval
from diptych.models import load_trained
from diptych.pair.pair import Pair
from diptych.tracking.packing import probability_column
from diptych.vae.model import Vae

_BATCH_SIZE = 256


class ServedModel:
    """A model that takes numpy images; MLflow calls `predict`."""

    def __init__(self, model: Cnn | Vae) -> None:
        self._model = model

    def predict(
        self,
        images: UInt8[np.ndarray, "n c h w"],
        params: Mapping[str, Any] | None = None,  # noqa: ARG002  # part of MLflow's call
    ) -> Float32[np.ndarray, "n k"]:
        """Answer for each image: calibrated class probabilities (cnn) or latent means (vae).

        An autoencoder sees the image cut to black and white at half intensity.
        """
        with torch.inference_mode():
            batches = torch.tensor(images).split(_BATCH_SIZE)
            return torch.cat([self._answer(to_unit_interval(batch)) for batch in batches]).numpy()

    def _answer(self, images: Tensor) -> Tensor:
        if isinstance(self._model, Cnn):
            return self._model.log_probabilities(images).exp()
        # The encoder knows binary images only, and an answer must not depend on chance.
        return self._model.encode((images > 0.5).float()).mean


class ServedPair:
    """The pair as a table of answers; MLflow calls `predict`."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair

    def predict(
        self,
        images: UInt8[np.ndarray, "n c h w"],
        params: Mapping[str, Any] | None = None,  # noqa: ARG002  # part of MLflow's call
    ) -> pd.DataFrame:
        """Answer with a row for each image.

        Columns: `class` (its name), `confidence` (the class's probability), `novelty_p_value`,
        `decision` (`accept` or `abstain`) and, for each class, `probability_<name>`. Probabilities
        are calibrated.
        """
        answers = self._pair.answer(images)
        names = self._pair.class_names
        probabilities = answers.probabilities.astype(np.float64)
        return pd.DataFrame(
            {
                "class": [names[label] for label in answers.classes],
                "confidence": probabilities.max(axis=1),
                "novelty_p_value": answers.novelty_p_value,
                "decision": np.where(answers.accepted, "accept", "abstain"),
                **dict(zip(map(probability_column, names), probabilities.T, strict=True)),
            }
        )


def load_served(folder: Path) -> ServedModel | ServedPair:
    """Load a model from its folder; the sha256 of weights is checked, nothing is executed.

    Args:
        folder: As `save_model` or `save_pair` wrote it.

    Raises:
        CheckpointError: when the files are damaged or name a family that is not known.
    """
    model = load_trained(folder)
    return ServedPair(model) if isinstance(model, Pair) else ServedModel(model)


def _load_pyfunc(path: str) -> ServedModel | ServedPair:
    """MLflow's entry point; `path` is the model's folder."""
    return load_served(Path(path))
