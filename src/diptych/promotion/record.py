"""What the gate knows about one model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pandas as pd

Family = Literal["cnn", "vae", "pair"]


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """A model with its figures on the test set.

    Attributes:
        family: What it is.
        version: Its number in the registry; None while it is not registered.
        run_id: The run that made it.
        model_id: MLflow's id of the logged model.
        model_status: READY once all its files have arrived.
        weights_sha256: What its tag says.
        stored_weights_sha256: Of the bytes that the store hands out.
        description_sha256: Of what model.json says beside the weights; what its tag says.
        stored_description_sha256: Of the files that the store hands out.
        image_shape: Channels, height and width of its images; None if nobody knows.
        dataset_sha256: Of the data set that it was trained on.
        test_sha256: Of the test set that the figures are on.
        is_dirty: Whether the code had changes that were not committed; None if nobody knows.
        figures: Under dotted keys, as `metrics/evaluate.json` has them (`cnn.accuracy`), with
            `num_parameters`.
        per_image: One row per test image, in the set's order; None if not stored.
    """

    family: Family
    version: int | None
    run_id: str
    model_id: str
    model_status: str
    weights_sha256: str
    stored_weights_sha256: str
    description_sha256: str
    stored_description_sha256: str
    image_shape: tuple[int, int, int] | None
    dataset_sha256: str
    test_sha256: str
    is_dirty: bool | None
    figures: Mapping[str, float]
    per_image: pd.DataFrame | None

    @property
    def is_intact(self) -> bool:
        """Tell whether the store hands out the weights and the description that were tagged."""
        tagged = self.weights_sha256, self.description_sha256
        stored = self.stored_weights_sha256, self.stored_description_sha256
        return all(tagged) and stored == tagged
