import math

import numpy as np
import pytest
import torch

from diptych.evaluation.autoencoder import evaluate_autoencoder, reconstruct
from diptych.evaluation.params import EvaluateParams
from diptych.vae.evaluate import binarized_once

NATS = ["negative_elbo_nats", "rate_nats", "distortion_nats", "nll_nats"]


def params(num_importance_samples: int = 64, seed: int = 0) -> EvaluateParams:
    return EvaluateParams(
        num_importance_samples=num_importance_samples,
        num_mistakes=1,
        num_reconstructions=1,
        seed=seed,
    )


@pytest.fixture
def evaluate(tiny_vae, three_pixels, cpu):
    """Evaluate 503 images, which take more than one batch."""
    return lambda **changes: evaluate_autoencoder(
        tiny_vae((1, 1, 3)), three_pixels(503), params(**changes), cpu
    )


def test_every_image_is_a_row_and_figures_are_their_means(evaluate):
    evaluation = evaluate()
    rows, figures = evaluation.per_image, evaluation.figures
    assert list(rows) == NATS
    assert len(rows) == len(evaluation.latent_means) == figures["num_images"] == 503
    for name in NATS:
        assert figures[name] == pytest.approx(rows[name].mean(), rel=1e-6)
    bound = rows["rate_nats"] + rows["distortion_nats"]
    np.testing.assert_allclose(rows["negative_elbo_nats"], bound, rtol=1e-5)
    assert figures["nll_standard_error_nats"] == pytest.approx(rows["nll_nats"].std() / 503**0.5)


def test_figures_name_their_protocol(evaluate):
    figures = evaluate(num_importance_samples=7, seed=3).figures
    assert figures["nll_num_importance_samples"] == 7
    assert figures["binarization_seed"] == 3
    assert figures["num_latents"] == 2
    assert figures["active_units"] in (0, 1, 2)
    assert (figures["likelihood"], figures["binarization"]) == ("bernoulli", "dynamic")
    assert figures["bits_per_dim"] == pytest.approx(figures["nll_nats"] / 3 / math.log(2))


def test_the_likelihood_is_closer_than_the_bound_and_closer_with_more_samples(evaluate):
    """Means over 503 images: the gaps are many times their standard errors."""
    few, many = evaluate(num_importance_samples=2).figures, evaluate().figures
    assert few["negative_elbo_nats"] == many["negative_elbo_nats"]
    assert many["nll_nats"] < few["nll_nats"] < many["negative_elbo_nats"]


def test_the_seed_decides_pixels_and_noise(evaluate, tiny_vae, three_pixels, cpu):
    first, again, other = evaluate(), evaluate(), evaluate(seed=1)
    assert first.figures == again.figures
    assert first.per_image.equals(again.per_image)
    assert not np.array_equal(first.per_image["rate_nats"], other.per_image["rate_nats"])
    binary = binarized_once(three_pixels(503).images, 0)
    with torch.no_grad():
        means = tiny_vae((1, 1, 3)).encode(binary).mean
    np.testing.assert_allclose(first.latent_means, means.numpy(), rtol=1e-5, atol=1e-6)


def test_reconstructions_are_bytes_of_binary_images_with_their_distortion(
    tiny_vae, three_pixels, cpu
):
    model = tiny_vae((1, 1, 3))
    binary = binarized_once(three_pixels(4).images, 0)
    shown = reconstruct(model, binary, cpu)
    with torch.no_grad():
        expected = model.reconstruct(binary).double()
    np.testing.assert_array_equal(shown.inputs, 255 * binary.numpy().astype(np.uint8))
    np.testing.assert_allclose(shown.reconstructions, 255 * expected.numpy(), atol=0.51)
    likely = torch.where(binary == 1, expected, 1 - expected)
    np.testing.assert_allclose(
        shown.distortions_nats, -likely.log().flatten(1).sum(1).numpy(), rtol=1e-5
    )


def test_what_is_shown_are_the_first_images_as_they_were_evaluated(evaluate, three_pixels):
    shown = evaluate().shown
    binary = binarized_once(three_pixels(503).images, 0)[: len(shown.inputs)]
    assert len(binary) == params().num_reconstructions
    np.testing.assert_array_equal(shown.inputs, 255 * binary.numpy().astype(np.uint8))
