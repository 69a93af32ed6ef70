"""Whether a model's figures can be believed: finite, in range, and those of its images."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float64

from diptych.promotion.record import Family, ModelRecord

Range = tuple[float, float]

SHARE: Range = (0.0, 1.0)
NATS: Range = (0.0, 1e6)  # per image; pixels that are independent fair coins cost 0.69 each
ESTIMATED_NATS: Range = (-1e6, 1e6)  # of one image: the estimate from samples may be below 0
COUNT: Range = (1.0, 1e15)
SEED: Range = (0.0, 1e15)  # a larger one a float cannot tell from its neighbours
FINITE: Range = (-1e300, 1e300)  # stores keep inf as 1.797e308
SLACK = 1e-6
"""Rounding: of sums over images, and of what stores keep of numbers."""

PARTS: Mapping[Family, tuple[Family, ...]] = {
    "cnn": ("cnn",),
    "vae": ("vae",),
    "pair": ("cnn", "vae", "pair"),
}
"""What a family has figures of."""

NOVELTY = "pair.novelty_auroc."
"""Begins the key of each figure against one kind of novel images."""

DECLINED = "pair.novel_abstention_share."
"""Begins the key of the share of one kind of novel images that a pair does not answer."""

ROTATED = "rotated"
"""The kind of novel images that only a set of square images has."""

FIGURES: Mapping[Family, Mapping[str, Range]] = {
    "cnn": {
        "cnn.accuracy": SHARE,
        "cnn.ece": SHARE,
        "cnn.nll_nats": NATS,
        "cnn.num_images": COUNT,
    },
    "vae": {
        "vae.nll_nats": NATS,
        "vae.negative_elbo_nats": NATS,
        "vae.rate_nats": NATS,
        "vae.distortion_nats": NATS,
        "vae.active_units": (0.0, 1e6),
        "vae.num_images": COUNT,
        "vae.nll_num_importance_samples": (1.0, 1e6),
        "vae.binarization_seed": SEED,
    },
    "pair": {
        "pair.abstention_share": SHARE,
        f"{NOVELTY}noise": SHARE,
        f"{NOVELTY}inverted": SHARE,
        f"{NOVELTY}{ROTATED}": SHARE,
        f"{DECLINED}noise": SHARE,
        f"{DECLINED}inverted": SHARE,
    },
}
"""Figures that a model must have; see `demanded_figures`."""

COLUMNS: Mapping[Family, Mapping[str, Range]] = {
    "cnn": {
        "label": (0.0, 1e6),
        "prediction": (0.0, 1e6),
        "confidence": SHARE,
        "label_nll_nats": NATS,
    },
    "vae": {
        "label": (0.0, 1e6),
        "negative_elbo_nats": ESTIMATED_NATS,
        "rate_nats": ESTIMATED_NATS,
        "distortion_nats": ESTIMATED_NATS,
        "nll_nats": ESTIMATED_NATS,
    },
    "pair": {
        "novelty_p_value": SHARE,
        "accepted": SHARE,
    },
}
"""Columns that a per-image table must have."""


def column(table: pd.DataFrame, name: str) -> Float64[np.ndarray, " image"]:
    """Return a column's values; NaN for what is not a number."""
    values = pd.to_numeric(table[name], errors="coerce")
    return values.to_numpy(dtype=np.float64, na_value=np.nan)


def is_within(value: float, limits: Range) -> bool:
    """Tell whether a value is in a range, but for rounding; NaN is in none."""
    low, high = limits
    return low - SLACK <= value <= high + SLACK


def demanded_figures(record: ModelRecord) -> dict[str, Range]:
    """Return the figures that a model must have, each with its range.

    Images that are not square have none about rotated ones.
    """
    demanded: dict[str, Range] = {}
    for part in PARTS[record.family]:
        demanded |= FIGURES[part]
    if record.image_shape is not None and record.image_shape[1] != record.image_shape[2]:
        demanded.pop(f"{NOVELTY}{ROTATED}", None)
    return demanded


def figure_problems(record: ModelRecord, secondary_figure: str) -> list[str]:
    """Return what is wrong with a model's figures: missing, not finite, out of range.

    Args:
        record: The model.
        secondary_figure: Demanded beside those of its family.
    """
    demanded = {secondary_figure: FINITE, "num_parameters": COUNT, **demanded_figures(record)}
    found = {key: value for key, value in record.figures.items() if _is_of(record.family, key)}
    return [
        *(f"{key} is missing" for key in demanded if key not in found),
        *(
            f"{key} = {value:.4g}"
            for key, value in found.items()
            if not is_within(value, demanded.get(key, _usual_range(key)))
        ),
    ]


def table_problems(record: ModelRecord) -> list[str]:
    """Return what is wrong with a model's per-image table, by itself or beside its figures."""
    table = record.per_image
    if table is None or table.empty:
        return ["there is none"]
    return _shape_problems(record, table) or _value_problems(record, table)


def _is_of(family: Family, key: str) -> bool:
    """Tell whether a figure is about this family: one run has those of all models."""
    return key.split(".")[0] not in FIGURES.keys() - set(PARTS[family])


def _usual_range(key: str) -> Range:
    return SHARE if key.startswith(NOVELTY) else FINITE


def _shape_problems(record: ModelRecord, table: pd.DataFrame) -> list[str]:
    columns: dict[str, Range] = {}
    for part in PARTS[record.family]:
        columns |= COLUMNS[part]
    num_images = {
        key: record.figures.get(key, math.nan)
        for part in PARTS[record.family]
        if (key := f"{part}.num_images") in FIGURES[part]
    }
    return [
        *(
            f"{len(table)} rows, {key} = {num:.15g}"
            for key, num in num_images.items()
            if num != len(table)
        ),
        *(f"column {name} is missing" for name in columns if name not in table),
        *(
            f"{name}: {num_wrong} of {len(table)} values are not in [{limits[0]:g}, {limits[1]:g}]"
            for name, limits in columns.items()
            if name in table and (num_wrong := _num_outside(column(table, name), limits))
        ),
    ]


def _num_outside(values: Float64[np.ndarray, " image"], limits: Range) -> int:
    low, high = limits
    return int(np.count_nonzero(~((values >= low - SLACK) & (values <= high + SLACK))))


def _value_problems(record: ModelRecord, table: pd.DataFrame) -> list[str]:
    found: dict[str, float] = {}
    for part in PARTS[record.family]:
        found |= _FIGURES_FROM[part](table)
    return [
        f"{key} = {record.figures[key]:.6g}, the images' is {value:.6g}"
        for key, value in found.items()
        if key in record.figures
        and not math.isclose(record.figures[key], value, rel_tol=SLACK, abs_tol=SLACK)
    ]


def _classifier_figures(table: pd.DataFrame) -> dict[str, float]:
    # torch takes a second to import, which showing a decision need not wait for.
    import torch

    from diptych.cnn.metrics import expected_calibration_error

    is_right = column(table, "prediction") == column(table, "label")
    confidence = column(table, "confidence")
    return {
        "cnn.accuracy": float(is_right.mean()),
        # pandas hands out its own memory, read-only, which torch copies but does not share.
        "cnn.ece": expected_calibration_error(torch.tensor(confidence), torch.tensor(is_right)),
        "cnn.nll_nats": float(column(table, "label_nll_nats").mean()),
    }


def _autoencoder_figures(table: pd.DataFrame) -> dict[str, float]:
    names = ("nll_nats", "negative_elbo_nats", "rate_nats", "distortion_nats")
    return {f"vae.{name}": float(column(table, name).mean()) for name in names}


def _pair_figures(table: pd.DataFrame) -> dict[str, float]:
    return {"pair.abstention_share": 1 - float(column(table, "accepted").mean())}


_FIGURES_FROM = {
    "cnn": _classifier_figures,
    "vae": _autoencoder_figures,
    "pair": _pair_figures,
}
