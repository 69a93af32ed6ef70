import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from diptych.cnn.metrics import classifier_metrics
from diptych.images.arrays import load_description, load_image_set
from diptych.images.batches import to_device, to_unit_interval
from diptych.models import load_cnn
from diptych.params import read_yaml

from .conftest import (
    DAMAGES,
    NUM_IMAGES,
    PROCESSED,
    check_rerun,
    each_damage,
    refusal,
    run_stage,
    write_params,
)

MODEL = Path("models", "cnn")
METRICS = Path("metrics", "train_cnn.json")
CURVES = Path("plots", "train_cnn.csv")
INPUTS = (
    "dataset.json",
    "train/images.npy",
    "train/labels.npy",
    "validation/images.npy",
    "validation/labels.npy",
)


def test_a_model_says_what_it_is_and_what_it_was_made_from(finished):
    dataset = load_description(finished / PROCESSED)
    params = read_yaml(finished / "params.yaml")["train_cnn"]
    description = json.loads((finished / MODEL / "model.json").read_bytes())
    assert {path.name for path in (finished / MODEL).iterdir()} == {
        "model.json",
        "weights.safetensors",
    }
    assert description["family"] == "cnn"
    assert description["architecture"] == params["architecture"]
    assert description["params"] == params
    assert description["image_shape"] == list(dataset.image_shape)
    assert description["class_names"] == list(dataset.class_names)
    assert description["fingerprints"]["dataset"] == "stripes"
    assert description["fingerprints"]["dataset_sha256"] == dataset.digest
    assert description["best_epoch"] in range(1, params["num_epochs"] + 1)


def test_the_figures_are_those_of_the_saved_weights_on_validation(finished):
    figures = json.loads((finished / METRICS).read_bytes())
    dataset = load_description(finished / PROCESSED)
    validation = to_device(
        load_image_set(finished / PROCESSED, "validation", dataset), torch.device("cpu")
    )
    model = load_cnn(finished / MODEL)
    with torch.no_grad():
        found = classifier_metrics(
            model.log_probabilities(to_unit_interval(validation.images)), validation.labels
        )
    stored = figures["validation"]["calibrated"]
    assert stored["accuracy"] == found.accuracy
    assert stored["nll_nats"] == pytest.approx(found.nll_nats, abs=1e-5)
    assert stored["num_images"] == NUM_IMAGES["validation"]
    assert stored["nll_nats"] <= figures["validation"]["uncalibrated"]["nll_nats"]
    assert figures["temperature"] == model.temperature.item()
    assert figures["num_parameters"] == sum(p.numel() for p in model.parameters())


def test_the_curves_have_a_row_per_epoch_and_the_best_one_is_kept(finished):
    with (finished / CURVES).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert set(rows[0]) == {
        "epoch",
        "learning_rate",
        "train_loss_nats",
        "validation_accuracy",
        "validation_calibrated_nll_nats",
        "validation_nll_nats",
    }
    figures = json.loads((finished / METRICS).read_bytes())
    best = rows[figures["best_epoch"] - 1]
    calibrated = [float(row["validation_calibrated_nll_nats"]) for row in rows]
    assert float(best["validation_calibrated_nll_nats"]) == min(calibrated)
    model, dataset = load_cnn(finished / MODEL), load_description(finished / PROCESSED)
    validation = load_image_set(finished / PROCESSED, "validation", dataset)
    images = to_unit_interval(torch.from_numpy(np.array(validation.images)))
    with torch.no_grad():
        losses = functional.cross_entropy(
            model.single_view_logits(images), torch.from_numpy(np.array(validation.labels))
        )
    assert float(best["validation_nll_nats"]) == pytest.approx(losses.item(), abs=1e-5)


def test_a_second_run_elsewhere_without_the_test_set_gives_the_same_bytes(finished, tmp_path):
    check_rerun(finished, tmp_path, "train_cnn", PROCESSED / "test", Path("models", "vae"))


def test_another_seed_gives_other_weights(project):
    before = (project / MODEL / "weights.safetensors").read_bytes()
    write_params(project, {"train_cnn": {"seed": 1}})
    run_stage(project, "train_cnn")
    assert (project / MODEL / "weights.safetensors").read_bytes() != before


@each_damage
@pytest.mark.parametrize("name", INPUTS)
def test_a_bad_input_is_named_in_one_line_and_nothing_is_written(project, name, damage):
    DAMAGES[damage](project / PROCESSED / name)
    assert refusal(project, "train_cnn").startswith(f"{PROCESSED / name}: ")


def test_images_too_small_for_the_architecture_are_refused(project):
    write_params(project, {"train_cnn": {"architecture": "article"}})
    line = refusal(project, "train_cnn")
    assert line.startswith("train_cnn.architecture: ")
    assert line.endswith("(got 12 x 12)")
