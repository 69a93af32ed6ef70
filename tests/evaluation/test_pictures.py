"""That the right pictures reach the right files; how they look is the reports' affair."""

from pathlib import Path

import numpy as np
import pytest

from diptych.evaluation.autoencoder import evaluate_autoencoder
from diptych.evaluation.classifier import evaluate_classifier
from diptych.evaluation.generation import generate
from diptych.evaluation.pair import evaluate_pair, novel_images
from diptych.evaluation.params import EvaluateParams, GenerateSamplesParams
from diptych.evaluation.pictures import (
    sample_grids,
    save_evaluation_pictures,
    save_sample_pictures,
)
from diptych.images.arrays import ImageSet
from diptych.images.batches import to_pixels
from diptych.novelty import NoveltyDetector, fit_novelty
from diptych.params import read_yaml

ROOT = Path(__file__).parents[2]
CLASSES = ("x", "y", "z")


def pictures_in(folder: Path) -> set[str]:
    files = sorted(folder.iterdir())
    assert all(file.read_bytes().startswith(b"\x89PNG\r\n") for file in files)
    return {file.name for file in files}


def shown_by_dvc(folder: str) -> set[str]:
    plots = [plot for plot in read_yaml(ROOT / "dvc.yaml")["plots"] if isinstance(plot, str)]
    return {Path(plot).name for plot in plots if Path(plot).parent.name == folder}


@pytest.fixture
def generated(tiny_vae, striped, cpu):
    params = GenerateSamplesParams(
        num_samples=12,
        num_shown=11,
        manifold_side=3,
        num_interpolations=2,
        num_interpolation_steps=3,
        num_per_class=2,
        acceptance_confidence=0.9,
        seed=0,
    )
    return generate(tiny_vae((1, 8, 8)), striped(12), striped(6, seed=1), 3, params, cpu)


def test_the_pictures_of_an_evaluation_are_those_that_dvc_shows(
    tmp_path, brightest, three_pixels, tiny_vae, cpu
):
    images = three_pixels(40)
    model = tiny_vae((1, 1, 3))
    params = EvaluateParams(num_importance_samples=1, num_mistakes=2, num_reconstructions=3, seed=0)
    novelty = NoveltyDetector(model, fit_novelty(model, images.images, 0))
    novel = novel_images(images.images, {}, 0)
    save_evaluation_pictures(
        tmp_path,
        ImageSet(images.images.numpy(), images.labels.numpy()),
        CLASSES,
        evaluate_classifier(brightest, images, cpu),
        evaluate_autoencoder(model, images, params, cpu),
        evaluate_pair(novelty, images.images, novel, 0.1),
        params.num_mistakes,
    )
    assert pictures_in(tmp_path) == shown_by_dvc("evaluation")


def test_the_pictures_of_samples_are_those_that_dvc_shows(tmp_path, generated):
    save_sample_pictures(tmp_path, generated, CLASSES, num_shown=11)
    assert pictures_in(tmp_path) == shown_by_dvc("samples")


def test_grids_hold_what_was_generated(generated):
    grids = sample_grids(generated, num_shown=11)
    assert set(grids) == {Path(name).stem for name in shown_by_dvc("samples")}
    assert grids["prior_samples"].shape == (2, 10, 1, 8, 8)
    prior = to_pixels(generated.prior)
    np.testing.assert_array_equal(grids["prior_samples"][0], prior[:10])
    np.testing.assert_array_equal(grids["prior_samples"][1, 0], prior[10])
    np.testing.assert_array_equal(grids["manifold"], to_pixels(generated.manifold))
    assert grids["interpolations"].shape == (2, 3, 1, 8, 8)
    assert grids["class_walks"].shape == (3, 2, 1, 8, 8)
