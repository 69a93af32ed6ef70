import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from diptych.vae.elbo import log_prior_over_posterior
from diptych.vae.likelihood import bernoulli_log_likelihood
from diptych.vae.model import SubpixelConvolution, Vae, build_vae
from diptych.vae.params import VaeTrainingParams

ARCHITECTURES = ["convolutional", "article"]


def build(params: VaeTrainingParams, image_shape: tuple[int, int, int] = (1, 28, 28)) -> Vae:
    torch.manual_seed(0)
    return build_vae(params, image_shape)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 20, 33), (2, 5, 6), (1, 1, 1)])
@pytest.mark.parametrize("num_latents", [1, 4])
def test_images_of_any_shape_have_a_bound(vae_params, binary, architecture, shape, num_latents):
    model = build(vae_params(architecture=architecture, num_latents=num_latents), shape)
    images, noise = binary(3, *shape), torch.randn(3, num_latents)
    assert model.encode(images).mean.shape == (3, num_latents)
    assert model.probabilities(noise).shape == (3, *shape)
    terms = model(images, noise)
    assert terms.distortion.shape == terms.rate.shape == (3,)
    assert (terms.distortion > 0).all()
    assert (terms.rate > 0).all()
    reconstructed = model.reconstruct(images)
    assert reconstructed.shape == images.shape
    assert 0 < reconstructed.min() < reconstructed.max() + 1e-9 < 1


@torch.no_grad()
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_decoder_that_knows_nothing_costs_a_bit_per_pixel(vae_params, binary, architecture):
    """784 ln 2 = 543.43 nats, whatever the image."""
    model = build(vae_params(architecture=architecture))
    *_, weight, bias = model.decoder.parameters()
    weight.zero_()
    bias.zero_()
    distortion = model(binary(4, 1, 28, 28), torch.randn(4, 3)).distortion
    torch.testing.assert_close(distortion, torch.full((4,), 784 * math.log(2)), rtol=1e-6, atol=0)


def test_the_articles_layers(vae_params):
    model = build(vae_params(architecture="article", num_latents=2))
    shapes = [tuple(p.shape) for p in model.parameters() if p.ndim == 2]
    assert shapes == [(128, 784), (4, 128), (784, 2), (784, 784)]


@torch.no_grad()
def test_the_articles_decoder_bends_where_the_prior_is(vae_params):
    """Half of its units bend farther out than half of the prior's draws of two latents lie."""
    decoder = build(vae_params(architecture="article", num_latents=2)).decoder
    weight, bias, *_ = decoder.parameters()
    distances = bias.abs() / weight.norm(dim=1)
    assert distances.median() > math.sqrt(2 * math.log(2))


def test_a_subpixel_convolution_is_a_convolution_and_a_pixel_shuffle():
    random = torch.Generator().manual_seed(0)
    layer = SubpixelConvolution(2, 3)
    shuffled = nn.Conv2d(2, 12, 3, padding=1)
    for own, other in zip(layer.parameters(), shuffled.parameters(), strict=True):
        own.data = torch.randn(own.shape, generator=random)
        # Of a pixel shuffle's channels the place within 2 x 2 runs fastest.
        other.data = own.data.unflatten(0, (4, 3)).transpose(0, 1).flatten(0, 1)
    maps = torch.randn(2, 2, 3, 5, generator=random)
    for layout in (torch.contiguous_format, torch.channels_last):
        pixels = layer(maps.contiguous(memory_format=layout))
        torch.testing.assert_close(pixels, functional.pixel_shuffle(shuffled(maps), 2))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_edges_are_the_first_and_the_last_matrix(vae_params, architecture):
    model = build(vae_params(architecture=architecture))
    matrices = [name for name, p in model.named_parameters() if p.ndim >= 2]
    assert model.edge_parameters == (matrices[0], matrices[-1])


def test_the_terms_are_those_of_encoder_and_decoder(vae_params, binary):
    model, images, noise = build(vae_params()), binary(2, 1, 28, 28), torch.randn(2, 3)
    posterior = model.encode(images)
    terms = model(images, noise)
    logits = model.decoder(posterior.at(noise))
    assert torch.equal(terms.distortion, -bernoulli_log_likelihood(logits, images))
    assert torch.equal(terms.rate, posterior.rate())


def test_a_weight_is_the_joint_density_over_the_posterior(vae_params, binary):
    model, images, noise = build(vae_params()), binary(2, 1, 28, 28), torch.randn(5, 2, 3)
    posterior = model.encode(images)
    weights = model.log_weights(images, posterior, noise)
    ratios = log_prior_over_posterior(posterior, noise)
    for sample in range(5):
        expected = ratios[sample] - model(images, noise[sample]).distortion
        torch.testing.assert_close(weights[sample], expected)


def test_a_reconstruction_is_the_decoded_mean(vae_params, binary):
    model, images = build(vae_params()), binary(2, 1, 28, 28)
    expected = model.decoder(model.encode(images).mean).sigmoid()
    assert torch.equal(model.reconstruct(images), expected)


@torch.no_grad()
def test_a_sample_has_the_probabilities_of_its_pixels(vae_params):
    """The share of ones in 4,000 draws is within 5 standard errors: false alarms 7e-6."""
    model = build(vae_params(), (1, 3, 4))
    latents = torch.randn(1, 3)
    uniforms = torch.rand(4000, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    images = model.sample(latents.expand(4000, -1), uniforms)
    assert set(images.unique().tolist()) <= {0.0, 1.0}
    expected = model.probabilities(latents)[0]
    tolerance = 5 * (expected * (1 - expected) / 4000).sqrt()
    assert ((images.mean(dim=0) - expected).abs() < tolerance).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_reach_every_parameter(vae_params, binary, architecture):
    model = build(vae_params(architecture=architecture))
    model(binary(4, 1, 28, 28), torch.randn(4, 3)).negative_elbo.mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
