import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from diptych.images.arrays import load_description
from diptych.params import read_yaml

from .conftest import (
    DAMAGES,
    PROCESSED,
    check_rerun,
    each_damage,
    refusal,
    run_stage,
    write_images,
    write_params,
)

METRICS = Path("metrics", "generate_samples.json")
SAMPLES = Path("samples")
MODELS = (Path("models", "cnn"), Path("models", "vae"))
INPUTS = (
    PROCESSED / "dataset.json",
    *(
        PROCESSED / split / f"{name}.npy"
        for split in ("train", "test")
        for name in ("images", "labels")
    ),
    *(model / name for model in MODELS for name in ("model.json", "weights.safetensors")),
)


def figures_in(folder: Path) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((folder / METRICS).read_bytes())
    return figures


def test_the_figures_are_shares_of_the_samples_and_a_distance(finished):
    figures = figures_in(finished)
    params = read_yaml(finished / "params.yaml")["generate_samples"]
    dataset = load_description(finished / PROCESSED)
    assert set(figures) == {
        "accepted_share",
        "acceptance_confidence",
        "class_shares_normalized_entropy",
        "class_shares",
        "mean_nearest_training_distance",
        "num_samples",
    }
    assert figures["num_samples"] == params["num_samples"]
    assert figures["acceptance_confidence"] == params["acceptance_confidence"]
    assert set(figures["class_shares"]) == set(dataset.class_names)
    for share in (figures["accepted_share"], *figures["class_shares"].values()):
        num_images = share * params["num_samples"]
        assert num_images == pytest.approx(round(num_images))
    assert sum(figures["class_shares"].values()) == pytest.approx(1)
    assert 0 <= figures["class_shares_normalized_entropy"] <= 1 + 1e-12
    assert 0 < figures["mean_nearest_training_distance"] < math.sqrt(math.prod(dataset.image_shape))


def test_the_folder_holds_the_pictures(finished):
    assert {path.name for path in (finished / SAMPLES).iterdir()} == {
        "class_walks.png",
        "grids",
        "interpolations.png",
        "manifold.png",
        "prior_samples.png",
    }


def test_a_second_run_elsewhere_without_validation_gives_the_same_bytes(finished, tmp_path):
    unread = (PROCESSED / "validation", Path("evaluation"))
    check_rerun(finished, tmp_path, "generate_samples", *unread)


def test_a_classifier_that_need_not_be_sure_accepts_every_sample(project):
    write_params(project, {"generate_samples": {"acceptance_confidence": 0.0}})
    run_stage(project, "generate_samples")
    assert figures_in(project)["accepted_share"] == 1


def test_more_is_asked_for_than_there_are_images(project):
    before = figures_in(project)
    write_params(project, {"generate_samples": {"num_interpolations": 1000}})
    run_stage(project, "generate_samples")
    assert figures_in(project) == before


@each_damage
@pytest.mark.parametrize("path", INPUTS, ids=str)
def test_a_bad_input_is_named_in_one_line_and_nothing_is_written(project, path, damage):
    DAMAGES[damage](project / path)
    assert refusal(project, "generate_samples").startswith(f"{path}: ")


def test_each_model_must_be_of_its_family(project):
    cnn, vae = (project / model for model in MODELS)
    shutil.rmtree(cnn)
    shutil.copytree(vae, cnn)
    assert refusal(project, "generate_samples") == (
        "models/cnn/model.json: family: must be 'cnn' (got 'vae')"
    )


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_a_model_for_images_of_another_shape_is_refused(project, colour, model):
    shutil.rmtree(project / model)
    shutil.copytree(colour / model, project / model)
    assert refusal(project, "generate_samples") == (
        f"{model}/model.json: image_shape: must be [1, 12, 12] as in stripes (got [3, 20, 24])"
    )


def test_other_classes_than_the_models_are_refused(project):
    write_images(project, (1, 12, 12), ("a", "b"))
    assert refusal(project, "generate_samples") == (
        "models/cnn/model.json: class_names: must be ['a', 'b'] as in stripes (got ['a', 'b', 'c'])"
    )
