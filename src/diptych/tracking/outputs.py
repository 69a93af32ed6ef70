"""What a finished stage tells, from its files alone: while it ends or long after."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from diptych.files import read_json
from diptych.images.arrays import load_description
from diptych.model_files import MODEL_FILE
from diptych.reports.grids import GRIDS_FOLDER
from diptych.tracking.tracker import Tracker

HEADLINE_STAGES = frozenset({"evaluate", "generate_samples"})
"""Stages whose figures stand on the run of the whole pipeline too."""

PICTURE_OPTIONS = ("evaluation", "samples")
"""Options of stages that name folders of pictures."""

_TABLE = "per_image"


def log_outputs(tracker: Tracker, stage: str, outs: Mapping[str, Path]) -> None:
    """Log what a stage has made, under the same keys and steps in every run.

    Args:
        tracker: What is told.
        stage: The stage's name.
        outs: Its outputs by the names of its options (`metrics`, `model`, …).
    """
    rows = _rows(outs["curves"]) if "curves" in outs else []
    if "processed" in outs:
        tracker.set_tags({"diptych.dataset_sha256": load_description(outs["processed"]).digest})
    if "metrics" in outs:
        _log_figures(tracker, stage, outs, last_step=int(rows[-1]["epoch"]) if rows else 0)
    if rows:
        _log_curves(tracker, stage, outs, rows)
    for option in PICTURE_OPTIONS:
        if option in outs:
            _log_results(tracker, outs[option], option)
    for option in ("model", "pair"):
        if option in outs:
            tracker.log_model(outs[option], _description(outs[option])["family"])


def log_epochs(tracker: Tracker, curves: Path) -> None:
    """Log the figures of a training epoch by epoch, as it told them itself while it ran.

    Args:
        tracker: What is told.
        curves: The training's table: `epoch`, counted from 1, and a column per figure.
    """
    for row in _rows(curves):
        tracker.log_metrics(
            {key: value for key, value in row.items() if key != "epoch"}, step=int(row["epoch"])
        )


def log_grids(tracker: Tracker, folder: Path) -> None:
    """Log the plain pictures of a folder, by which whole executions are compared."""
    for grid in sorted((folder / GRIDS_FOLDER).glob("*.png")):
        tracker.log_image(grid.stem, _pixels(grid), step=0, is_headline=True)


def _log_figures(tracker: Tracker, stage: str, outs: Mapping[str, Path], last_step: int) -> None:
    from diptych.tracking.figures import numeric_figures

    figures = read_json(outs["metrics"])
    if stage in HEADLINE_STAGES:
        tracker.log_summary(numeric_figures(figures))
    else:
        tracker.log_metrics(numeric_figures(figures), step=last_step)
    if "test_sha256" in figures:
        tracker.set_tags({"diptych.test_sha256": str(figures["test_sha256"])})
    folder = next((option for option in PICTURE_OPTIONS if option in outs), None)
    tracker.log_artifact(outs["metrics"], folder)


def _log_curves(
    tracker: Tracker, stage: str, outs: Mapping[str, Path], rows: list[dict[str, float | int]]
) -> None:
    from diptych.tracking.figures import log_curves

    log_curves(tracker, rows, stage, _description(outs["model"])["best_epoch"])
    tracker.log_artifact(outs["curves"])


def _log_results(tracker: Tracker, folder: Path, name: str) -> None:
    """Log a folder of pictures and, if there is one, the table of images."""
    table = folder / f"{_TABLE}.parquet"
    if table.is_file():
        tracker.log_table(table, _TABLE)
        tracker.log_artifact(table, name)
    for picture in sorted(folder.glob("*.png")):
        tracker.log_artifact(picture, name)
    log_grids(tracker, folder)


def _rows(curves: Path) -> list[dict[str, float | int]]:
    import pandas as pd

    table = pd.read_csv(curves)
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _description(model: Path) -> dict[str, Any]:
    return read_json(model / MODEL_FILE)


def _pixels(picture: Path) -> UInt8[np.ndarray, "height width channel"]:
    from PIL import Image

    with Image.open(picture) as image:
        return np.atleast_3d(np.asarray(image))
