"""What a stage tells when it is over, read from its files: the same now and later."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from diptych.checkpoints import save_model
from diptych.files import write_csv, write_json, write_parquet
from diptych.optimization.progress import EpochReport
from diptych.reports.grids import GRIDS_FOLDER, picture_png, save_grids, tile_images
from diptych.tracking.events import (
    ArtifactLogged,
    Event,
    FigureLogged,
    ImageLogged,
    MetricsLogged,
    ModelLogged,
    SummaryLogged,
    TableLogged,
    TagsSet,
)
from diptych.tracking.figures import log_curves, log_epoch
from diptych.tracking.outputs import log_epochs, log_outputs
from diptych.tracking.tracker import MemoryTracker

EPOCHS = [{"loss_nats": 1 / 3, "accuracy": 0.1}, {"loss_nats": 1e-17, "accuracy": 0.7}]


@pytest.fixture
def training(tmp_path: Path) -> dict[str, Path]:
    """The files of a finished training."""
    rows = [{"epoch": number, **row} for number, row in enumerate(EPOCHS, start=1)]
    description = {"family": "cnn", "image_shape": [1, 3, 4], "best_epoch": 2}
    save_model(tmp_path / "cnn", {"w": torch.zeros(2)}, description)
    write_csv(tmp_path / "train_cnn.csv", rows)
    write_json(tmp_path / "train_cnn.json", {"best": {"accuracy": 0.7}, "name": "x"})
    return {
        "model": tmp_path / "cnn",
        "metrics": tmp_path / "train_cnn.json",
        "curves": tmp_path / "train_cnn.csv",
    }


@pytest.fixture
def evaluation(tmp_path: Path) -> dict[str, Path]:
    """The files of a finished evaluation."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    grids = {"test_reconstructions": np.arange(96, dtype=np.uint8).reshape(2, 4, 1, 3, 4)}
    save_grids(folder / GRIDS_FOLDER, grids)
    (folder / "mistakes.png").write_bytes(picture_png(np.zeros((2, 2, 3), np.uint8)))
    write_parquet(folder / "per_image.parquet", pd.DataFrame({"label": [3, 1]}))
    figures = {"cnn": {"accuracy": 0.5}, "dataset": "mnist", "test_sha256": "ab"}
    write_json(tmp_path / "evaluate.json", figures)
    save_model(tmp_path / "pair", {"w": torch.zeros(1)}, {"family": "pair"})
    return {
        "metrics": tmp_path / "evaluate.json",
        "evaluation": folder,
        "pair": tmp_path / "pair",
    }


def told(stage: str, outs: dict[str, Path]) -> list[Event]:
    tracker = MemoryTracker()
    log_outputs(tracker, stage, outs)
    return tracker.events


def of_kind(kind: type[Event], events: list[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


def artifacts(events: list[Event]) -> set[str]:
    return {
        f"{event.folder or '.'}/{Path(event.path).name}"
        for event in events
        if isinstance(event, ArtifactLogged)
    }


def test_a_training_tells_figures_at_its_last_epoch_curves_and_model(
    training: dict[str, Path],
) -> None:
    events = told("train_cnn", training)
    (figures,) = of_kind(MetricsLogged, events)
    assert isinstance(figures, MetricsLogged)
    assert (figures.metrics, figures.step) == ({"best.accuracy": 0.7}, 2)
    assert of_kind(SummaryLogged, events) == []
    assert artifacts(events) == {"./train_cnn.json", "./train_cnn.csv"}
    assert of_kind(ModelLogged, events) == [ModelLogged(str(training["model"]), "cnn")]


def test_curves_read_from_the_file_are_those_drawn_while_training(
    training: dict[str, Path],
) -> None:
    as_it_ran, later = MemoryTracker(), MemoryTracker()
    for number, metrics in enumerate(EPOCHS, start=1):
        log_epoch(as_it_ran, EpochReport(number, len(EPOCHS), metrics, {}))
    rows = [{"epoch": number, **row} for number, row in enumerate(EPOCHS, start=1)]
    log_curves(as_it_ran, rows, "train_cnn", 2)
    log_epochs(later, training["curves"])
    log_outputs(later, "train_cnn", training)
    for kind in (MetricsLogged, FigureLogged):
        found = of_kind(kind, later.events)[: len(of_kind(kind, as_it_ran.events))]
        assert [_timeless(event) for event in found] == [
            _timeless(event) for event in of_kind(kind, as_it_ran.events)
        ]


def _timeless(event: Event) -> object:
    return (event.metrics, event.step) if isinstance(event, MetricsLogged) else event


def test_an_evaluation_tells_headline_table_pictures_and_pair(
    evaluation: dict[str, Path],
) -> None:
    events = told("evaluate", evaluation)
    (summary,) = of_kind(SummaryLogged, events)
    assert isinstance(summary, SummaryLogged)
    assert summary.metrics == {"cnn.accuracy": 0.5}
    assert TagsSet({"diptych.test_sha256": "ab"}) in events
    table = evaluation["evaluation"] / "per_image.parquet"
    assert of_kind(TableLogged, events) == [TableLogged(str(table), "per_image")]
    # Under the names that every run has, wherever the files are.
    assert artifacts(events) == {
        "evaluation/per_image.parquet",
        "evaluation/mistakes.png",
        "evaluation/evaluate.json",
    }
    assert of_kind(ModelLogged, events) == [ModelLogged(str(evaluation["pair"]), "pair")]
    (image,) = of_kind(ImageLogged, events)
    assert isinstance(image, ImageLogged)
    assert (image.key, image.step) == ("test_reconstructions", 0)
    grid = np.arange(96, dtype=np.uint8).reshape(2, 4, 1, 3, 4)
    assert image.png == picture_png(tile_images(grid))


def test_colour_grids_keep_their_colours(evaluation: dict[str, Path]) -> None:
    grid = np.arange(288, dtype=np.uint8).reshape(2, 4, 3, 3, 4)
    save_grids(evaluation["evaluation"] / GRIDS_FOLDER, {"test_reconstructions": grid})
    (image,) = of_kind(ImageLogged, told("evaluate", evaluation))
    assert isinstance(image, ImageLogged)
    assert image.png == picture_png(tile_images(grid))


def test_a_stage_without_files_of_its_own_tells_nothing(tmp_path: Path) -> None:
    assert told("download", {"raw": tmp_path}) == []


@pytest.mark.parametrize("missing", ["model", "metrics", "curves"])
def test_a_missing_file_is_an_error_and_no_gap(
    missing: str, training: dict[str, Path], tmp_path: Path
) -> None:
    training[missing] = tmp_path / "nowhere"
    with pytest.raises(Exception, match="nowhere"):
        told("train_cnn", training)
