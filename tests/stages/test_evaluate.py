import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from diptych.images.arrays import load_description, load_image_set
from diptych.model_files import sealed
from diptych.models import load_pair
from diptych.params import read_yaml

from .conftest import (
    DAMAGES,
    NUM_IMAGES,
    PROCESSED,
    ROOT,
    check_rerun,
    contents_of,
    each_damage,
    refusal,
    run_stage,
    write_images,
    write_params,
)

METRICS = Path("metrics", "evaluate.json")
EVALUATION = Path("evaluation")
PAIR = Path("models", "pair")
MODELS = (Path("models", "cnn"), Path("models", "vae"))
INPUTS = (
    PROCESSED / "dataset.json",
    PROCESSED / "novel" / "novel.json",
    PROCESSED / "novel" / "dark" / "images.npy",
    PROCESSED / "test" / "images.npy",
    PROCESSED / "test" / "labels.npy",
    *(model / name for model in MODELS for name in ("model.json", "weights.safetensors")),
)


@pytest.fixture
def figures(finished):
    return json.loads((finished / METRICS).read_bytes())


@pytest.fixture
def per_image(finished):
    return pd.read_parquet(finished / EVALUATION / "per_image.parquet")


def test_the_classifiers_figures_are_means_of_the_table(figures, per_image):
    cnn = figures["cnn"]
    correct = per_image["label"] == per_image["prediction"]
    assert cnn["num_images"] == len(per_image) == NUM_IMAGES["test"]
    assert cnn["accuracy"] == pytest.approx(correct.mean())
    assert cnn["nll_nats"] == pytest.approx(per_image["label_nll_nats"].mean())
    assert cnn["per_class_accuracy"] == pytest.approx(
        list(correct.groupby(per_image["label"]).mean())
    )
    assert 0 <= cnn["ece"] <= 1
    assert set(cnn["uncalibrated"]) == {"nll_nats", "ece"}
    assert per_image["confidence"].between(1 / 3, 1).all()


def test_the_autoencoders_figures_are_means_of_the_table(finished, figures, per_image):
    vae, params = figures["vae"], read_yaml(finished / "params.yaml")
    for name in ("negative_elbo_nats", "rate_nats", "distortion_nats", "nll_nats"):
        assert vae[name] == pytest.approx(per_image[name].mean()), name
    assert vae["negative_elbo_nats"] == pytest.approx(vae["rate_nats"] + vae["distortion_nats"])
    assert vae["nll_num_importance_samples"] == params["evaluate"]["num_importance_samples"]
    assert vae["binarization_seed"] == params["evaluate"]["seed"]
    assert vae["num_images"] == NUM_IMAGES["test"]
    assert vae["num_latents"] == params["train_vae"]["num_latents"]
    assert vae["active_units"] in range(vae["num_latents"] + 1)
    assert vae["likelihood"] == params["train_vae"]["likelihood"]
    assert vae["binarization"] == params["train_vae"]["binarization"]


def test_bits_per_dim_are_bits_per_pixel_and_channel(finished, figures):
    num_dims = math.prod(
        json.loads((finished / MODELS[1] / "model.json").read_bytes())["image_shape"]
    )
    nats = figures["vae"]["bits_per_dim"] * num_dims * math.log(2)
    assert nats == pytest.approx(figures["vae"]["nll_nats"])


def test_the_test_set_is_named_by_its_digest(finished, figures):
    dataset = load_description(finished / PROCESSED)
    assert figures["test_sha256"] == dataset.test.digest
    assert figures["dataset"] == dataset.name


def test_the_pair_that_is_written_gives_the_tables_answers(finished, figures, per_image):
    pair = load_pair(finished / PAIR)
    dataset = load_description(finished / PROCESSED)
    answers = pair.answer(load_image_set(finished / PROCESSED, "test", dataset).images)
    np.testing.assert_array_equal(answers.classes, per_image["prediction"])
    np.testing.assert_allclose(answers.probabilities.max(axis=1), per_image["confidence"], 1e-4)
    np.testing.assert_array_equal(answers.novelty_p_value, per_image["novelty_p_value"])
    np.testing.assert_array_equal(answers.accepted, per_image["accepted"])
    assert figures["pair"]["abstention_share"] == pytest.approx(1 - per_image["accepted"].mean())
    assert figures["pair"]["num_reference_images"] == NUM_IMAGES["validation"]


def test_the_pair_is_both_models_with_their_names(finished):
    description = json.loads((finished / PAIR / "model.json").read_bytes())
    for model in MODELS:
        assert contents_of(finished / PAIR / model.name) == contents_of(finished / model)
        member = json.loads((finished / model / "model.json").read_bytes())
        assert description["members"][model.name] == member["weights_sha256"]
    assert (
        description["abstention_level"]
        == read_yaml(ROOT / "params.yaml")["pair"]["abstention_level"]
    )
    assert (
        description["fingerprints"]["dataset_sha256"]
        == load_description(finished / PROCESSED).digest
    )


def test_novelty_is_measured_on_made_and_on_given_images(finished, figures):
    _, _, height, width = load_image_set(
        finished / PROCESSED, "test", load_description(finished / PROCESSED)
    ).images.shape
    names = {"noise", "inverted", "dark"} | ({"rotated"} if height == width else set())
    assert set(figures["pair"]["novelty_auroc"]) == names
    assert set(figures["pair"]["novel_abstention_share"]) == names


def test_the_folder_holds_the_table_and_the_pictures(finished):
    assert {path.name for path in (finished / EVALUATION).iterdir()} == {
        "confusion_matrix.png",
        "grids",
        "latent_means.png",
        "mistakes.png",
        "novelty.png",
        "per_image.parquet",
        "reconstructions.png",
        "reliability.png",
    }


def test_a_second_run_elsewhere_with_the_test_set_alone_gives_the_same_bytes(finished, tmp_path):
    unread = (PROCESSED / "train", PROCESSED / "validation", Path("samples"))
    check_rerun(finished, tmp_path, "evaluate", *unread)


def test_more_is_asked_for_than_there_are_images(project):
    write_params(project, {"evaluate": {"num_mistakes": 1000, "num_reconstructions": 1000}})
    before = json.loads((project / METRICS).read_bytes())
    run_stage(project, "evaluate")
    assert json.loads((project / METRICS).read_bytes()) == before


@each_damage
@pytest.mark.parametrize("path", INPUTS, ids=str)
def test_a_bad_input_is_named_in_one_line_and_nothing_is_written(project, path, damage):
    DAMAGES[damage](project / path)
    assert refusal(project, "evaluate").startswith(f"{path}: ")


def test_each_model_must_be_of_its_family(project):
    cnn, vae = (project / model for model in MODELS)
    shutil.rmtree(vae)
    shutil.copytree(cnn, vae)
    assert refusal(project, "evaluate") == (
        "models/vae/model.json: family: must be 'vae' (got 'cnn')"
    )


def test_images_of_another_shape_than_the_models_are_refused(project):
    write_images(project, (1, 12, 16))
    assert refusal(project, "evaluate") == (
        "models/cnn/model.json: image_shape: must be [1, 12, 16] as in stripes (got [1, 12, 12])"
    )


def test_other_classes_than_the_models_are_refused(project):
    write_images(project, (1, 12, 12), ("a", "b"))
    assert refusal(project, "evaluate") == (
        "models/cnn/model.json: class_names: must be ['a', 'b'] as in stripes (got ['a', 'b', 'c'])"
    )


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_a_model_of_other_data_is_refused(project, model):
    path = project / model / "model.json"
    description = json.loads(path.read_bytes())
    description["fingerprints"]["dataset_sha256"] = "0" * 64
    path.write_text(json.dumps(sealed(description)), encoding="utf-8")
    assert refusal(project, "evaluate").startswith(f"{model}/model.json: fingerprints: must be")
