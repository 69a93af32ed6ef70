import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from diptych.vae.elbo import (
    ElboTerms,
    Gaussian,
    active_units,
    importance_weighted_bound,
    log_prior_over_posterior,
)
from diptych.vae.evaluate import evaluate_log_likelihood
from diptych.vae.likelihood import bernoulli_log_likelihood
from diptych.vae.model import Vae

PRIOR = Normal(0.0, 1.0)
NUM_REPEATS = 4000
# An average of many draws is within 5 of its standard errors but once in 1.7 million.
NUM_STANDARD_ERRORS = 5


def random_gaussian(*shape: int) -> Gaussian:
    noise = torch.Generator().manual_seed(0)
    mean, log_variance = torch.randn(2, *shape, generator=noise, dtype=torch.float64) * 2
    return Gaussian(mean, log_variance)


def as_distribution(gaussian: Gaussian) -> Normal:
    return Normal(gaussian.mean, (0.5 * gaussian.log_variance).exp())


def test_the_rate_is_the_divergence_from_the_prior():
    gaussian = random_gaussian(50, 7)
    expected = kl_divergence(as_distribution(gaussian), PRIOR).sum(dim=1)
    torch.testing.assert_close(gaussian.rate(), expected)


def test_the_rate_of_the_prior_is_zero():
    assert torch.equal(Gaussian(torch.zeros(3, 5), torch.zeros(3, 5)).rate(), torch.zeros(3))


@settings(deadline=None, database=None)
@given(st.floats(-10, 10), st.floats(-10, 10))
def test_no_other_rate_is_zero_or_less(mean, log_variance):
    gaussian = Gaussian(*torch.tensor([[[mean]], [[log_variance]]], dtype=torch.float64))
    differs = max(abs(mean), abs(log_variance)) > 1e-6  # below it the squares round to nothing
    assert gaussian.rate().item() > 0 if differs else gaussian.rate().item() > -1e-15


def test_samples_have_the_mean_and_the_deviation():
    gaussian = random_gaussian(2, 3)
    noise = torch.randn(5, 2, 3, dtype=torch.float64)
    z = gaussian.at(noise)
    assert z.shape == (5, 2, 3)
    distribution = as_distribution(gaussian)
    torch.testing.assert_close((z - distribution.mean) / distribution.stddev, noise)


def test_the_ratio_of_the_densities():
    gaussian = random_gaussian(4, 3)
    noise = torch.randn(6, 4, 3, dtype=torch.float64)
    z = gaussian.at(noise)
    expected = PRIOR.log_prob(z) - as_distribution(gaussian).log_prob(z)
    torch.testing.assert_close(log_prior_over_posterior(gaussian, noise), expected.sum(dim=-1))


def test_the_bounds_terms_add_up():
    terms = ElboTerms(distortion=torch.tensor([80.0, 70.0]), rate=torch.tensor([20.0, 0.0]))
    assert terms.negative_elbo.tolist() == [100.0, 70.0]


def test_more_samples_never_loosen_the_bound_of_the_same_weights():
    """Jensen's inequality, exactly: a mean of logs is at most the log of the mean."""
    weights = 5 * torch.randn(12, 30, generator=torch.Generator().manual_seed(0))
    bounds = [
        torch.stack([importance_weighted_bound(part) for part in weights.split(size)]).mean(dim=0)
        for size in (1, 2, 4, 12)
    ]
    for looser, tighter in pairwise(bounds):
        assert (looser < tighter).all()
    assert (bounds[-1] < weights.amax(dim=0)).all()
    torch.testing.assert_close(bounds[0], weights.mean(dim=0))


def test_weights_far_below_the_smallest_number_are_no_problem():
    weights = torch.tensor([[-2000.0], [-2000.0 + math.log(3)]])
    assert importance_weighted_bound(weights).item() == pytest.approx(-2000 + math.log(2))


def quadrature(model: Vae, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return log p(x) and the exact bound of each image by summing over a fine grid of z."""
    grid = torch.linspace(-15, 15, 6001, dtype=torch.float64)[:, None]
    step = grid[1, 0] - grid[0, 0]
    latents = grid.float()[:, None].expand(-1, len(images), -1)
    log_likelihood = model.log_likelihood(latents, images).double()
    log_joint = log_likelihood + PRIOR.log_prob(grid)
    posterior = model.encode(images)
    density = as_distribution(posterior).log_prob(grid[:, None]).exp()[..., 0]
    elbo = (density * log_likelihood).sum(dim=0) * step - posterior.rate()
    return log_joint.logsumexp(dim=0) + step.log(), elbo


@torch.no_grad()
def test_elbo_importance_weighted_bounds_and_likelihood_stand_in_this_order(
    linear_vae, binary, cpu
):
    model, images = linear_vae(), binary(3, 1, 2, 2)
    log_likelihood, elbo = quadrature(model, images)
    assert (log_likelihood - elbo > 0.05).all(), "a gap that a test can see"

    noise = torch.randn(16 * NUM_REPEATS, 3, 1, generator=torch.Generator().manual_seed(0))
    log_weights = model.log_weights(images, model.encode(images), noise).double()
    estimates = [
        importance_weighted_bound(log_weights.view(size, -1)).view(-1, 3) for size in (1, 4, 16)
    ]
    means = [values.mean(dim=0) for values in estimates]
    tolerances = [
        NUM_STANDARD_ERRORS * values.std(dim=0) / math.sqrt(len(values)) for values in estimates
    ]
    assert ((means[0] - elbo).abs() < tolerances[0]).all()
    assert (means[0] + tolerances[0] < means[1] - tolerances[1]).all()
    assert (means[1] + tolerances[1] < means[2] - tolerances[2]).all()
    assert (means[2] - tolerances[2] < log_likelihood).all()
    tight = evaluate_log_likelihood(model, images, num_samples=20_000, seed=0, compute=cpu)
    torch.testing.assert_close(tight.double(), log_likelihood, atol=0.02, rtol=0)


@torch.no_grad()
def test_the_elbo_is_the_likelihood_when_the_latents_say_nothing(linear_vae, binary):
    model, images = linear_vae(num_latents=2), binary(5, 1, 2, 2)
    for parameter in model.encoder.parameters():
        parameter.zero_()
    model.decoder[0].weight.zero_()
    logits = model.decoder[0].bias.view(1, 2, 2)
    log_likelihood = bernoulli_log_likelihood(logits, images)
    terms = model(images, torch.randn(5, 2))
    assert torch.equal(terms.rate, torch.zeros(5))
    torch.testing.assert_close(-terms.negative_elbo, log_likelihood)
    log_weights = model.log_weights(images, model.encode(images), torch.randn(7, 5, 2))
    torch.testing.assert_close(importance_weighted_bound(log_weights), log_likelihood)


def test_a_unit_is_active_when_its_mean_varies():
    means = torch.zeros(100, 4)
    means[:, 1] = 7.0
    means[:, 2] = torch.linspace(-1, 1, 100)
    means[:, 3] = torch.linspace(-0.1, 0.1, 100)  # variance 0.0034
    assert active_units(means) == 1
    assert active_units(means, threshold=0.003) == 2
