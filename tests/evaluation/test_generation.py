from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diptych.cnn.model import Cnn
from diptych.evaluation.generation import generate, judge_samples
from diptych.evaluation.params import GenerateSamplesParams
from diptych.images.batches import to_unit_interval
from diptych.optimization.compute import Compute
from diptych.vae.evaluate import binarized_once, posterior_means
from diptych.vae.sampling import decode_probabilities

CLASSES = ("x", "y", "z")
FOUR_SAMPLES = ([1.0, 0, 0], [0, 1.0, 0], [0.9, 0, 0], [0.5, 0.4, 0.4])


def params(**changes: float) -> GenerateSamplesParams:
    values = {
        "num_samples": 7,
        "num_shown": 4,
        "manifold_side": 3,
        "num_interpolations": 2,
        "num_interpolation_steps": 5,
        "num_per_class": 4,
        "acceptance_confidence": 0.9,
        "seed": 0,
    }
    return GenerateSamplesParams.model_validate({**values, **changes})


@pytest.fixture
def generated(tiny_vae, striped, cpu):
    train, test = striped(12), striped(9, seed=1)
    return lambda **changes: generate(tiny_vae((1, 8, 8)), train, test, 3, params(**changes), cpu)


def pixels(*rows: list[float]) -> Tensor:
    return torch.tensor(rows).view(-1, 1, 1, 3)


def test_as_many_images_as_asked_for(generated):
    images = generated()
    assert images.prior.shape == (7, 1, 8, 8)
    assert images.manifold.shape == (3, 3, 1, 8, 8)
    assert images.starts.shape == images.ends.shape == (2, 1, 8, 8)
    assert images.interpolations.shape == (2, 5, 1, 8, 8)
    assert images.class_walks.shape == (3, 4, 1, 8, 8)
    assert images.num_latents == 2
    for decoded in (images.prior, images.manifold, images.interpolations, images.class_walks):
        assert 0 <= decoded.min() < decoded.max() <= 1


def test_a_sample_does_not_depend_on_how_many_are_drawn(generated):
    seven, one = generated().prior, generated(num_samples=1, num_shown=1).prior
    torch.testing.assert_close(seven[:1], one)
    assert len(seven.flatten(1).unique(dim=0)) == 7
    assert not torch.equal(generated(seed=1).prior, seven)


def test_interpolations_lead_from_one_test_image_to_another(generated, tiny_vae, striped, cpu):
    images, model, test = generated(), tiny_vae((1, 8, 8)), striped(9, seed=1)
    known = [image.tobytes() for image in test.images.numpy()]
    shown = np.concatenate([images.starts, images.ends])
    positions = [known.index(image.tobytes()) for image in shown]
    assert len(set(positions)) == 4, "no image is taken twice"
    binary = binarized_once(torch.from_numpy(shown), 0)
    ends = decode_probabilities(model, posterior_means(model, binary, cpu), cpu)
    torch.testing.assert_close(images.interpolations[:, 0], ends[:2])
    torch.testing.assert_close(images.interpolations[:, -1], ends[2:])


def test_a_small_test_set_gives_fewer_pairs(generated):
    assert len(generated(num_interpolations=100).interpolations) == 4


def test_the_middle_of_the_manifold_of_two_latents_is_the_origin(generated, tiny_vae, cpu):
    origin = decode_probabilities(tiny_vae((1, 8, 8)), torch.zeros(1, 2), cpu)
    torch.testing.assert_close(generated().manifold[1, 1], origin[0])


def judge(
    samples: Tensor,
    training: Tensor,
    classifier: Cnn,
    cpu: Compute,
    acceptance_confidence: float = 0.9,
) -> dict[str, Any]:
    return judge_samples(samples, training, classifier, CLASSES, acceptance_confidence, cpu)


def test_the_judgement_of_four_samples_by_hand(brightest, cpu):
    """Softmax of 8 times the pixels: (1, 0, 0) has confidence 0.999, (.5, .4, .4) only 0.53."""
    training = torch.tensor([255, 0, 0, 0, 255, 0], dtype=torch.uint8).view(2, 1, 1, 3)
    figures = judge(pixels(*FOUR_SAMPLES), training, brightest, cpu)
    assert figures["num_samples"] == 4
    assert figures["acceptance_confidence"] == 0.9
    assert figures["accepted_share"] == 0.75
    assert figures["class_shares"] == {"x": 0.75, "y": 0.25, "z": 0.0}
    distances = [0, 0, 0.1, (0.25 + 0.16 + 0.16) ** 0.5]
    assert figures["mean_nearest_training_distance"] == pytest.approx(sum(distances) / 4, abs=1e-3)
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert figures["class_shares_normalized_entropy"] == pytest.approx(entropy / np.log(3))


@pytest.mark.parametrize(
    ("samples", "balance"),
    [(torch.eye(3), 1.0), (torch.eye(3)[[1, 1, 1]], 0.0)],
)
def test_balance_is_one_for_equal_shares_and_zero_for_one_class(brightest, cpu, samples, balance):
    training = torch.zeros(1, 1, 1, 3, dtype=torch.uint8)
    figures = judge(samples.view(-1, 1, 1, 3), training, brightest, cpu)
    assert figures["class_shares_normalized_entropy"] == pytest.approx(balance)


@pytest.mark.parametrize(
    ("confidence", "share"), [(0.0, 1.0), (0.52, 1.0), (0.53, 0.75), (1.0, 0.0)]
)
def test_acceptance_goes_by_confidence(brightest, cpu, confidence, share):
    training = torch.zeros(1, 1, 1, 3, dtype=torch.uint8)
    figures = judge(pixels(*FOUR_SAMPLES), training, brightest, cpu, confidence)
    assert figures["accepted_share"] == share


def test_every_sample_is_judged(brightest, three_pixels, cpu):
    """251 samples take more than one batch; training images themselves are at distance 0."""
    images = three_pixels(251).images
    figures = judge(to_unit_interval(images), images, brightest, cpu)
    expected = torch.bincount(images.flatten(1).argmax(dim=1), minlength=3) / 251
    assert list(figures["class_shares"].values()) == pytest.approx(expected.tolist())
    assert figures["mean_nearest_training_distance"] == pytest.approx(0, abs=1e-3)
