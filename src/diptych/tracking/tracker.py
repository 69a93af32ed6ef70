"""The tracker that stages see, and the two that need no MLflow."""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from diptych.images.arrays import SPLITS, DatasetDescription
from diptych.reports.grids import picture_png
from diptych.tracking.events import (
    ArtifactLogged,
    DatasetLogged,
    Event,
    FigureLogged,
    ImageLogged,
    MetricsLogged,
    ModelLogged,
    ParamsLogged,
    SummaryLogged,
    TableLogged,
    TagsSet,
)
from diptych.tracking.secrets import redacted


@runtime_checkable
class Tracker(Protocol):
    """What a stage tells about its run. No method waits for a network or a database.

    What is named by path is copied at once: afterwards the stage may change or delete it.
    """

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record parameters under dotted keys (`train_cnn.learning_rate`)."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None) -> None:
        """Record scalars of one step, in one call; an infinite one is recorded as NaN."""

    def log_summary(self, metrics: Mapping[str, float]) -> None:
        """Record headline figures on this run and on the run of the whole pipeline."""

    def log_image(
        self, key: str, image: UInt8[np.ndarray, "h w c"], step: int, *, is_headline: bool = False
    ) -> None:
        """Record a picture of 1 or 3 channels; a headline one on the whole pipeline's run too.

        Equal keys and steps are shown beside each other for several runs, so keep them stable.
        """

    def log_figure(self, png: bytes, path: str) -> None:
        """Record the bytes of a PNG file at a relative path among the run's artifacts."""

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Record a file or a folder, optionally under a folder of the run's artifacts."""

    def log_table(self, path: Path, name: str) -> None:
        """Record a Parquet file as a table that the UI shows, named `<name>.json`."""

    def log_model(self, folder: Path, name: str) -> None:
        """Record a folder written by `save_model` as a model that can be loaded and served."""

    def log_dataset(self, dataset: DatasetDescription, folder: Path, context: str) -> None:
        """Record the data set in a folder as an input of this run and of the whole pipeline's.

        The context says what for: `training`, `evaluation`, …
        """

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags on this run."""


class NullTracker:
    """Records nothing: tracking is switched off."""

    def log_params(self, params: Mapping[str, object]) -> None:
        """Do nothing."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None) -> None:
        """Do nothing."""

    def log_summary(self, metrics: Mapping[str, float]) -> None:
        """Do nothing."""

    def log_image(
        self, key: str, image: UInt8[np.ndarray, "h w c"], step: int, *, is_headline: bool = False
    ) -> None:
        """Do nothing."""

    def log_figure(self, png: bytes, path: str) -> None:
        """Do nothing."""

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Do nothing."""

    def log_table(self, path: Path, name: str) -> None:
        """Do nothing."""

    def log_model(self, folder: Path, name: str) -> None:
        """Do nothing."""

    def log_dataset(self, dataset: DatasetDescription, folder: Path, context: str) -> None:
        """Do nothing."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Do nothing."""


class EventTracker:
    """Turns every call into one plain event and hands it on."""

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record parameters; credentials in addresses are masked."""
        self._emit(ParamsLogged(as_text(params)))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None) -> None:
        """Record scalars of one step; an infinite one is recorded as NaN."""
        self._emit(MetricsLogged(_as_storable(metrics), step, now_ms()))

    def log_summary(self, metrics: Mapping[str, float]) -> None:
        """Record headline figures on this run and on the run of the whole pipeline."""
        self._emit(SummaryLogged(_as_storable(metrics), now_ms()))

    def log_image(
        self, key: str, image: UInt8[np.ndarray, "h w c"], step: int, *, is_headline: bool = False
    ) -> None:
        """Record a picture of 1 or 3 channels."""
        self._emit(ImageLogged(key, picture_png(image), step, now_ms(), is_headline))

    def log_figure(self, png: bytes, path: str) -> None:
        """Record the bytes of a PNG file among the run's artifacts."""
        self._emit(FigureLogged(path, png))

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Record a file or a folder."""
        self._emit(ArtifactLogged(str(path.absolute()), folder))

    def log_table(self, path: Path, name: str) -> None:
        """Record a Parquet file as a table."""
        self._emit(TableLogged(str(path.absolute()), name))

    def log_model(self, folder: Path, name: str) -> None:
        """Record a model's folder."""
        self._emit(ModelLogged(str(folder.absolute()), name))

    def log_dataset(self, dataset: DatasetDescription, folder: Path, context: str) -> None:
        """Record the data set that is read."""
        # The folder as it was given: an absolute one would differ between an experiment's copies.
        num_images = {str(split): dataset.split(split).num_images for split in SPLITS}
        shape, source = list(dataset.image_shape), folder.as_posix()
        self._emit(DatasetLogged(dataset.name, dataset.digest, source, num_images, shape, context))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags; credentials in addresses are masked."""
        self._emit(TagsSet(as_text(tags)))


class MemoryTracker(EventTracker):
    """Keeps the events in a list, for tests."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        super().__init__(self.events.append)


def as_text(values: Mapping[str, object]) -> dict[str, str]:
    """Write values as params.yaml would show them, with credentials masked."""
    return {
        key: redacted(value if isinstance(value, str) else json.dumps(value, default=str))
        for key, value in values.items()
    }


def now_ms() -> int:
    """Return the time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _as_storable(metrics: Mapping[str, float]) -> dict[str, float]:
    # The store would turn an infinity into 1.797e308, a number that a comparison believes.
    return {key: math.nan if math.isinf(value) else float(value) for key, value in metrics.items()}
