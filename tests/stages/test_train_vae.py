import csv
import json
from pathlib import Path

import pytest
import torch

from diptych.images.arrays import load_description, load_image_set
from diptych.images.batches import to_device
from diptych.models import load_novelty, load_vae
from diptych.params import read_yaml
from diptych.vae.evaluate import binarized_once, evaluate_elbo

from .conftest import (
    DAMAGES,
    PROCESSED,
    check_rerun,
    each_damage,
    refusal,
    run_stage,
    write_params,
)

MODEL = Path("models", "vae")
METRICS = Path("metrics", "train_vae.json")
CURVES = Path("plots", "train_vae.csv")
INPUTS = (
    "dataset.json",
    "train/images.npy",
    "train/labels.npy",
    "validation/images.npy",
    "validation/labels.npy",
)


def test_a_model_says_what_it_is_and_what_it_was_made_from(finished):
    dataset = load_description(finished / PROCESSED)
    params = read_yaml(finished / "params.yaml")["train_vae"]
    description = json.loads((finished / MODEL / "model.json").read_bytes())
    assert {path.name for path in (finished / MODEL).iterdir()} == {
        "model.json",
        "weights.safetensors",
    }
    assert description["family"] == "vae"
    assert description["architecture"] == params["architecture"]
    assert description["params"] == params
    assert description["image_shape"] == list(dataset.image_shape)
    assert description["fingerprints"]["dataset"] == "stripes"
    assert description["fingerprints"]["dataset_sha256"] == dataset.digest
    assert description["best_epoch"] in range(1, params["num_epochs"] + 1)


def test_the_figures_are_those_of_the_saved_weights_on_validation(finished, cpu):
    figures = json.loads((finished / METRICS).read_bytes())
    params = read_yaml(finished / "params.yaml")["train_vae"]
    dataset = load_description(finished / PROCESSED)
    validation = to_device(load_image_set(finished / PROCESSED, "validation", dataset), cpu.device)
    model = load_vae(finished / MODEL)
    binary = binarized_once(validation.images, params["seed"])
    terms = evaluate_elbo(model, binary, params["seed"], cpu)
    stored = figures["validation"]
    assert stored["negative_elbo_nats"] == pytest.approx(terms.negative_elbo.mean().item())
    assert stored["rate_nats"] == pytest.approx(terms.rate.mean().item())
    assert stored["distortion_nats"] == pytest.approx(terms.distortion.mean().item())
    assert figures["num_parameters"] == sum(p.numel() for p in model.parameters())
    assert figures["likelihood"] == params["likelihood"]
    assert figures["binarization"] == params["binarization"]


def test_the_reference_of_novelty_is_the_saved_weights_on_validation(finished, cpu):
    dataset = load_description(finished / PROCESSED)
    images = to_device(load_image_set(finished / PROCESSED, "validation", dataset), cpu.device)
    novelty = load_novelty(finished / MODEL)
    scores = novelty.scores_nats(images.images).sort().values
    torch.testing.assert_close(novelty.reference_nats, scores)


def test_the_curves_have_a_row_per_epoch_and_the_best_one_is_kept(finished):
    with (finished / CURVES).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert set(rows[0]) == {
        "epoch",
        "learning_rate",
        "train_negative_elbo_nats",
        "validation_negative_elbo_nats",
        "validation_rate_nats",
        "validation_distortion_nats",
    }
    figures = json.loads((finished / METRICS).read_bytes())
    bounds = [float(row["validation_negative_elbo_nats"]) for row in rows]
    assert figures["validation"]["negative_elbo_nats"] == min(bounds)
    assert bounds[figures["best_epoch"] - 1] == min(bounds)


def test_a_second_run_elsewhere_without_the_test_set_gives_the_same_bytes(finished, tmp_path):
    check_rerun(finished, tmp_path, "train_vae", PROCESSED / "test", Path("models", "cnn"))


def test_another_seed_gives_other_weights(project):
    before = (project / MODEL / "weights.safetensors").read_bytes()
    write_params(project, {"train_vae": {"seed": 1}})
    run_stage(project, "train_vae")
    assert (project / MODEL / "weights.safetensors").read_bytes() != before


@each_damage
@pytest.mark.parametrize("name", INPUTS)
def test_a_bad_input_is_named_in_one_line_and_nothing_is_written(project, name, damage):
    DAMAGES[damage](project / PROCESSED / name)
    assert refusal(project, "train_vae").startswith(f"{PROCESSED / name}: ")


def test_binarization_static_trains_another_model_than_dynamic(project):
    before = (project / MODEL / "weights.safetensors").read_bytes()
    write_params(project, {"train_vae": {"binarization": "static"}})
    run_stage(project, "train_vae")
    assert (project / MODEL / "weights.safetensors").read_bytes() != before
    assert json.loads((project / METRICS).read_bytes())["binarization"] == "static"
