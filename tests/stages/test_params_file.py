"""Every parameter of the params.yaml that ships: removed, mistyped, out of range, misspelt."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from diptych.cnn.params import CnnTrainingParams
from diptych.evaluation.params import EvaluateParams, GenerateSamplesParams
from diptych.images.params import DatasetParams, PreprocessParams
from diptych.optimization.compute import ComputeParams
from diptych.optimization.params import CheckpointParams
from diptych.pair.params import PairParams
from diptych.params import Params, ParamsError, load_params, read_yaml
from diptych.promotion.params import PromotionParams
from diptych.vae.params import VaeTrainingParams

from .conftest import ROOT, STAGES

SHIPPED = read_yaml(ROOT / "params.yaml")
TYPES: dict[str, type[Params]] = {
    "dataset": DatasetParams,
    "preprocess": PreprocessParams,
    "compute": ComputeParams,
    "train_cnn": CnnTrainingParams,
    "train_vae": VaeTrainingParams,
    "checkpoints": CheckpointParams,
    "evaluate": EvaluateParams,
    "pair": PairParams,
    "generate_samples": GenerateSamplesParams,
    "promotion": PromotionParams,
}
KEYS = [(section, key) for section, values in SHIPPED.items() for key in values]

OUT_OF_RANGE: dict[str, dict[str, tuple[Any, str]]] = {
    "dataset": {
        "sources": ([], "must name at least one source"),
        "name": ("emnist", "must be 'mnist', 'fashion_mnist' or 'kmnist'"),
        "novel": ("emnist", "must be 'none', 'mnist', 'fashion_mnist' or 'kmnist'"),
    },
    "preprocess": {
        "num_validation": (0, "must be >= 1"),
        "seed": (-1, "must be >= 0"),
    },
    "compute": {
        "device": ("tpu", "must be 'auto', 'cuda', 'mps' or 'cpu'"),
        "precision": ("float16", "must be 'auto', 'float32' or 'bfloat16'"),
        "num_threads": (0, "must be 'auto'"),
    },
    "train_cnn": {
        "architecture": ("convolutional", "must be 'compact', 'deep' or 'article'"),
        "width": (0, "must be >= 1"),
        "num_blocks": (0, "must be >= 1"),
        "num_epochs": (0, "must be >= 1"),
        "batch_size": (0, "must be >= 1"),
        "optimizer": ("sgd", "must be 'muon' or 'adamw'"),
        "learning_rate": (0, "must be > 0"),
        "muon_learning_rate": (-0.1, "must be > 0"),
        "weight_decay": (-1e-9, "must be >= 0"),
        "schedule": ("linear", "must be 'one_cycle', 'cosine' or 'constant'"),
        "warmup_fraction": (1, "must be < 1"),
        "num_members": (0, "must be >= 1"),
        "pruned_fraction": (1, "must be < 1"),
        "label_smoothing": (1, "must be < 1"),
        "max_shift_pixels": (-1, "must be >= 0"),
        "max_rotation_degrees": (181, "must be <= 180"),
        "max_scale_change": (1, "must be < 1"),
        "mirror": ("left", "must be true or false"),
        "view_shift_pixels": (-1, "must be >= 0"),
        "view_rotation_degrees": (-0.1, "must be >= 0"),
        "view_scale_change": (1, "must be < 1"),
        "seed": (-1, "must be >= 0"),
    },
    "train_vae": {
        "architecture": ("compact", "must be 'convolutional' or 'article'"),
        "num_latents": (0, "must be >= 1"),
        "width": (0, "must be >= 1"),
        "num_hidden": (0, "must be >= 1"),
        "neighbourhood_radius_pixels": (-1, "must be >= 0"),
        "num_neighbourhood_features": (0, "must be >= 1"),
        "likelihood": ("gaussian", "must be 'bernoulli'"),
        "binarization": ("none", "must be 'dynamic' or 'static'"),
        "num_epochs": (0, "must be >= 1"),
        "batch_size": (-512, "must be >= 1"),
        "optimizer": ("Muon", "must be 'muon' or 'adamw'"),
        "learning_rate": (-0.002, "must be > 0"),
        "muon_learning_rate": (0, "must be > 0"),
        "weight_decay": (-1, "must be >= 0"),
        "schedule": ("", "must be 'one_cycle', 'cosine' or 'constant'"),
        "warmup_fraction": (-0.1, "must be >= 0"),
        "seed": (2**63, "must be < 9223372036854775808"),
    },
    "evaluate": {
        "num_importance_samples": (0, "must be >= 1"),
        "num_mistakes": (0, "must be >= 1"),
        "num_reconstructions": (0, "must be >= 1"),
        "seed": (-1, "must be >= 0"),
    },
    "pair": {
        "abstention_level": (1, "must be < 1"),
    },
    "generate_samples": {
        "num_samples": (0, "must be >= 1"),
        "num_shown": (0, "must be >= 1"),
        "manifold_side": (1, "must be >= 2"),
        "num_interpolations": (0, "must be >= 1"),
        "num_interpolation_steps": (1, "must be >= 2"),
        "num_per_class": (0, "must be >= 1"),
        "acceptance_confidence": (1.01, "must be <= 1"),
        "seed": (-1, "must be >= 0"),
    },
    "checkpoints": {"interval_seconds": (0.0, "must be > 0")},
    "promotion": {
        "prefix": ("team/diptych", "must be 1 to 100 letters, digits, - and _"),
        "min_cnn_accuracy": (99.5, "must be <= 1"),
        "max_cnn_ece": (-0.1, "must be >= 0"),
        "max_cnn_nll_nats": (0, "must be > 0"),
        "max_vae_nll_nats": (2e6, "must be <= 1000000"),
        "min_vae_active_units": (-1, "must be >= 0"),
        "max_pair_abstention_share": (1.5, "must be <= 1"),
        "min_pair_novelty_auroc": (-0.5, "must be >= 0"),
        "min_pair_novel_abstention_share": (1.1, "must be <= 1"),
        "min_pair_rotated_auroc": (1.1, "must be <= 1"),
        "max_class_accuracy_loss": (-0.01, "must be >= 0"),
        "significance_level": (0.6, "must be <= 0.5"),
        "max_accuracy_loss": (0, "must be > 0"),
        "max_nll_loss_nats": (0, "must be > 0"),
        "num_bootstrap_resamples": (99, "must be >= 100"),
        "secondary_figure": ("size in MB", "must be a figure's key, as num_parameters"),
    },
}

each_section = pytest.mark.parametrize("section", SHIPPED)
each_key = pytest.mark.parametrize(("section", "key"), KEYS)


def refusal(folder: Path, section: str, changed: dict[str, Any]) -> str:
    """The one line with which a changed section of the shipped file is refused."""
    path = folder / "params.yaml"
    path.write_text(json.dumps(SHIPPED | {section: changed}), encoding="utf-8")
    with pytest.raises(ParamsError) as caught:
        load_params(path, section, TYPES[section])
    (line,) = str(caught.value).splitlines()
    return line.removeprefix(f"{path}: ")


@each_section
def test_the_file_that_ships_loads_whole(section):
    loaded = load_params(ROOT / "params.yaml", section, TYPES[section])
    assert loaded.model_dump(mode="json") == SHIPPED[section]


def test_the_table_has_a_value_out_of_range_for_every_key():
    assert {(section, key) for section, keys in OUT_OF_RANGE.items() for key in keys} == set(KEYS)


@each_key
def test_a_removed_key_is_missed(tmp_path, section, key):
    changed = {name: value for name, value in SHIPPED[section].items() if name != key}
    assert refusal(tmp_path, section, changed) == f"{section}.{key}: this key is missing"


@pytest.mark.parametrize("value", [{"a": 1}, [1], None, True], ids=repr)
@each_key
def test_a_mistyped_value_is_told_what_it_must_be(tmp_path, section, key, value):
    if value is True and isinstance(SHIPPED[section][key], bool):
        value = 1
    line = refusal(tmp_path, section, SHIPPED[section] | {key: value})
    assert line.startswith(f"{section}.{key}")
    assert ": must be " in line
    found = value[0] if isinstance(value, list) and key == "sources" else value
    assert f"(got {found!r})" in line


@each_key
def test_text_for_a_number_and_a_number_for_text_are_told(tmp_path, section, key):
    value: Any = 7 if isinstance(SHIPPED[section][key], str) else "7"
    if (section, key) == ("compute", "num_threads"):
        value = "all"  # it takes one word, and numbers
    line = refusal(tmp_path, section, SHIPPED[section] | {key: value})
    assert line.startswith(f"{section}.{key}")
    assert ": must be " in line
    assert f"(got {value!r})" in line


@each_key
def test_a_value_out_of_range_is_told_the_range(tmp_path, section, key):
    value, expectation = OUT_OF_RANGE[section][key]
    line = refusal(tmp_path, section, SHIPPED[section] | {key: value})
    assert line.startswith(f"{section}.{key}")
    assert f": {expectation} " in line
    assert f"(got {value!r})" in line


@each_section
def test_an_unknown_key_is_refused(tmp_path, section):
    line = refusal(tmp_path, section, SHIPPED[section] | {"learning_rat": 1})
    assert line == f"{section}.learning_rat: unknown key (got 1)"


@each_section
@pytest.mark.parametrize("value", [None, 1, "text", []], ids=repr)
def test_a_section_must_have_keys(tmp_path, section, value):
    line = refusal(tmp_path, section, value)
    assert line == f"{section}: must be a section with keys (got {value!r})"


@each_section
def test_a_section_that_is_not_there_is_missed(tmp_path, section):
    path = tmp_path / "params.yaml"
    rest = {name: values for name, values in SHIPPED.items() if name != section}
    path.write_text(json.dumps(rest), encoding="utf-8")
    with pytest.raises(ParamsError, match=rf"^{path}: {section}: this section is missing$"):
        load_params(path, section, TYPES[section])


@pytest.mark.parametrize("stage", STAGES)
def test_the_command_of_the_pipeline_ends_with_one_line_and_writes_nothing(tmp_path, stage):
    section = STAGES[stage]["params"][-1]
    changed = SHIPPED | {section: SHIPPED[section] | {"misspelt": 1}}
    (tmp_path / "params.yaml").write_text(json.dumps(changed), encoding="utf-8")
    program, *options = shlex.split(STAGES[stage]["cmd"])[1:]
    environment = os.environ | {"DIPTYCH_TRACKING": "on", "MLFLOW_TRACKING_URI": ""}
    done = subprocess.run(
        [sys.executable, str(ROOT / program), *options],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr == f"{stage}: params.yaml: {section}.misspelt: unknown key (got 1)\n"
    assert done.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_no_more_samples_are_shown_than_drawn(tmp_path):
    section = SHIPPED["generate_samples"] | {"num_samples": 5, "num_shown": 6}
    path = tmp_path / "params.yaml"
    path.write_text(json.dumps({"generate_samples": section}), encoding="utf-8")
    with pytest.raises(ParamsError, match="generate_samples: num_shown must be <= num_samples = 5"):
        load_params(path, "generate_samples", GenerateSamplesParams)


def test_there_are_resamples_enough_for_the_level(tmp_path):
    section = SHIPPED["promotion"] | {"significance_level": 0.001, "num_bootstrap_resamples": 1000}
    line = refusal(tmp_path, "promotion", section)
    assert line.startswith(
        "promotion: num_bootstrap_resamples must be >= 2 / significance_level = 2000 (got "
    )


def test_the_novel_data_set_is_another(tmp_path):
    section = SHIPPED["dataset"] | {"name": "kmnist", "novel": "kmnist"}
    line = refusal(tmp_path, "dataset", section)
    assert line.startswith("dataset: novel must be another data set than name = kmnist (got ")
