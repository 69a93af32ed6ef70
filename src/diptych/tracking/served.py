"""The loader of logged models: `mlflow.pyfunc.load_model` and `mlflow models serve` call it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from diptych.cnn.model import Cnn
from diptych.images.batches import to_unit_interval
from diptych.models import load_trained
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
            batches = torch.from_numpy(images).split(_BATCH_SIZE)
            return torch.cat([self._answer(to_unit_interval(batch)) for batch in batches]).numpy()

    def _answer(self, images: Tensor) -> Tensor:
        if isinstance(self._model, Cnn):
            return self._model.log_probabilities(images).exp()
        # The encoder knows binary images only, and an answer must not depend on chance.
        return self._model.encode((images > 0.5).float()).mean


def load_served(folder: Path) -> ServedModel:
    """Load a model from a folder written by `save_model`; nothing in it is executed.

    Raises:
        CheckpointError: when the files are damaged or name a family that is not known.
    """
    return ServedModel(load_trained(folder))


def _load_pyfunc(path: str) -> ServedModel:
    """MLflow's entry point; `path` is the model's folder."""
    return load_served(Path(path))
