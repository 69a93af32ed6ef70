import pytest
import torch
from torch import Tensor

from diptych.optimization.compute import Compute
from diptych.vae.evaluate import (
    binarized_once,
    evaluate_elbo,
    evaluate_log_likelihood,
    posterior_means,
)
from diptych.vae.model import Vae

NUM_IMAGES = 503  # more than one batch
POSITIONS = [0, 499, 500, 502]


def bounds(
    model: Vae, images: Tensor, cpu: Compute, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    terms = evaluate_elbo(model, images, seed, cpu)
    return terms.distortion, terms.rate, evaluate_log_likelihood(model, images, 3, seed, cpu)


def test_every_image_is_seen_once_in_order(linear_vae, binary, cpu):
    model, images = linear_vae(), binary(NUM_IMAGES, 1, 2, 2)
    distortion, rate, log_likelihood = bounds(model, images, cpu)
    means = posterior_means(model, images, cpu)
    assert len(distortion) == len(rate) == len(log_likelihood) == len(means) == NUM_IMAGES
    for position in POSITIONS:
        posterior = model.encode(images[position : position + 1])
        torch.testing.assert_close(rate[position], posterior.rate()[0])
        torch.testing.assert_close(means[position], posterior.mean[0])


def test_every_image_has_noise_of_its_own(linear_vae, cpu):
    distortion, _, log_likelihood = bounds(linear_vae(), torch.ones(NUM_IMAGES, 1, 2, 2), cpu)
    for values in (distortion, log_likelihood):
        assert len(values.unique()) > 0.98 * NUM_IMAGES


def test_figures_are_a_function_of_the_seed_alone(linear_vae, binary, cpu):
    model, images = linear_vae(), binary(20, 1, 2, 2)
    torch.manual_seed(1)
    first = bounds(model, images, cpu)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again = bounds(model, images, cpu)
    assert torch.equal(torch.get_rng_state(), before), "the global generator is not touched"
    other = bounds(model, images, cpu, seed=1)
    assert all(map(torch.equal, first, again))
    assert torch.equal(first[1], other[1]), "the rate is exact"
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[2], other[2])


def test_an_image_does_not_see_its_neighbours(linear_vae, binary, cpu):
    model, images = linear_vae(), binary(20, 1, 2, 2)
    changed = images.clone()
    changed[10:] = 1 - changed[10:]
    for first, second in zip(bounds(model, images, cpu), bounds(model, changed, cpu), strict=True):
        assert torch.equal(first[:10], second[:10])
        assert not torch.equal(first[10:], second[10:])


@pytest.mark.parametrize("num_samples", [1, 3, 4, 5, 9])
def test_samples_beyond_one_pass_of_the_decoder_all_count(linear_vae, cpu, num_samples):
    """500 images leave room for 4 samples a pass. The bound grows with their number."""
    model, images = linear_vae(), torch.ones(500, 1, 2, 2)
    decoded = []
    model.decoder.register_forward_hook(
        lambda _module, _inputs, output: decoded.append(len(output))
    )
    evaluate_log_likelihood(model, images, num_samples, 0, cpu)
    assert sum(decoded) == 500 * num_samples
    assert max(decoded) <= 2000


def test_no_gradient_is_kept(linear_vae, binary, cpu):
    model, images = linear_vae(), binary(4, 1, 2, 2)
    results = [*bounds(model, images, cpu), posterior_means(model, images, cpu)]
    assert not any(result.requires_grad for result in results)


def test_a_set_is_binarised_once_per_seed(grey):
    images = grey(3, 1, 5, 5)
    assert torch.equal(binarized_once(images, 0), binarized_once(images, 0))
    assert not torch.equal(binarized_once(images, 0), binarized_once(images, 1))


def test_batches_do_not_change_a_figure(linear_vae, binary, cpu, monkeypatch):
    model, images = linear_vae(), binary(20, 1, 2, 2)
    whole = bounds(model, images, cpu)
    monkeypatch.setattr("diptych.vae.evaluate._BATCH_SIZE", 7)
    monkeypatch.setattr("diptych.vae.evaluate._DECODED_AT_ONCE", 7)
    for one, other in zip(whole, bounds(model, images, cpu), strict=True):
        torch.testing.assert_close(one, other)
