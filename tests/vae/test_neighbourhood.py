"""Pixels that see the pixels before them: causality, normalisation, and drawing one by one."""

import itertools

import pytest
import torch
from torch import Tensor

from diptych.vae.elbo import log_prior_over_posterior
from diptych.vae.likelihood import bernoulli_log_likelihood
from diptych.vae.model import Vae, build_vae
from diptych.vae.neighbourhood import Neighbourhood


@pytest.fixture
def neighbourhood():
    def build(channels: int = 1, radius: int = 1) -> Neighbourhood:
        torch.manual_seed(0)
        module = Neighbourhood(channels, 4, radius)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(3)  # so that a dependence shows
        return module

    return build


@pytest.fixture
def near_vae(vae_params):
    """An autoencoder whose pixels see their neighbours."""

    def build(shape: tuple[int, int, int], radius: int = 1) -> Vae:
        torch.manual_seed(0)
        return build_vae(vae_params(neighbourhood_radius_pixels=radius), shape).eval()

    return build


def random_maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
@pytest.mark.parametrize("radius", [1, 2])
def test_a_pixel_sees_the_earlier_ones_within_its_radius_and_no_others(neighbourhood, radius):
    module, side = neighbourhood(radius=radius), 7
    # Many maps: with some of them a pixel's units are all switched off.
    maps, image = random_maps(64, 1, 4, side, side), torch.zeros(1, 1, side, side)
    before = module(maps, image)[:, 0, 0]
    for row, column in itertools.product(range(side), repeat=2):
        changed = image.clone()
        changed[0, 0, row, column] = 1
        difference = (module(maps, changed)[:, 0, 0] - before).abs().amax(dim=0)
        seen_by = {
            (y, x)
            for y, x in itertools.product(range(side), repeat=2)
            if (y, x) > (row, column) and y - row <= radius and abs(x - column) <= radius
        }
        assert {(y, x) for y, x in (difference > 1e-6).nonzero().tolist()} == seen_by


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 2])
def test_the_probabilities_of_all_images_sum_to_one(neighbourhood, channels):
    """A law that a pixel which saw itself, or a later one, would break."""
    module, num_pixels = neighbourhood(channels=channels), channels * 6
    images = torch.tensor(list(itertools.product([0.0, 1.0], repeat=num_pixels)))
    images = images.view(-1, channels, 2, 3)
    maps = random_maps(1, 1, 4, 2, 3).expand(1, len(images), -1, -1, -1)
    log_likelihood = bernoulli_log_likelihood(module(maps, images), images)[0].double()
    assert log_likelihood.exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert log_likelihood.std() > 0.1


@torch.no_grad()
def test_drawing_pixel_by_pixel_meets_the_logits_of_the_whole_image(neighbourhood):
    module = neighbourhood(channels=2, radius=2)
    maps, met = random_maps(3, 4, 5, 6), torch.zeros(3, 2, 5, 6)

    def choose(probability: Tensor, row: int, column: int) -> Tensor:
        met[..., row, column] = probability
        return (probability > 0.5).float()

    images = module.draw(maps, choose)
    assert set(images.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(met, module(maps[None], images)[0].sigmoid())
    assert torch.equal(images, (met > 0.5).float())


@torch.no_grad()
def test_samples_are_as_frequent_as_they_are_likely(near_vae):
    """16 images, 20,000 draws, 5 standard errors each: 9e-6 false alarms."""
    model, num_draws = near_vae((1, 2, 2)), 20_000
    latents = torch.randn(1, 3, generator=torch.Generator().manual_seed(1))
    uniforms = torch.rand(num_draws, 1, 2, 2, generator=torch.Generator().manual_seed(2))
    drawn = model.sample(latents.expand(num_draws, -1), uniforms)
    images = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4))).view(16, 1, 2, 2)
    likely = model.log_likelihood(latents[:, None].expand(1, 16, -1), images)[0].exp()
    frequent = torch.stack([(drawn == image).all(dim=(1, 2, 3)).float().mean() for image in images])
    assert ((frequent - likely).abs() < 5 * (likely * (1 - likely) / num_draws).sqrt()).all()


@torch.no_grad()
def test_image_i_does_not_depend_on_its_batch(near_vae):
    model, latents = near_vae((1, 5, 6)), random_maps(7, 3)
    uniforms = torch.rand(7, 1, 5, 6, generator=torch.Generator().manual_seed(2))
    together = model.sample(latents, uniforms)
    alone = [model.sample(latents[i : i + 1], uniforms[i : i + 1]) for i in range(7)]
    assert torch.equal(together, torch.cat(alone))
    torch.testing.assert_close(model.probabilities(latents)[3:4], model.probabilities(latents[3:4]))


@torch.no_grad()
def test_without_a_say_of_neighbours_a_picture_is_exact(near_vae):
    model, latents = near_vae((1, 4, 4)), random_maps(2, 3)
    assert model.neighbourhood is not None
    model.neighbourhood.kernel.weight.zero_()
    logits = model.neighbourhood.head(model.decoder(latents))
    torch.testing.assert_close(model.probabilities(latents), logits.sigmoid())


@torch.no_grad()
def test_weights_of_many_samples_are_those_of_single_ones(near_vae, binary):
    model, images, noise = near_vae((1, 5, 6), radius=2), binary(2, 1, 5, 6), random_maps(5, 2, 3)
    posterior = model.encode(images)
    weights = model.log_weights(images, posterior, noise)
    alone = [model.log_weights(images, posterior, noise[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(weights, torch.cat(alone))
    ratios = log_prior_over_posterior(posterior, noise)
    torch.testing.assert_close(weights[0], ratios[0] - model(images, noise[0]).distortion)


def test_gradients_reach_every_parameter_and_no_masked_weight(near_vae, binary):
    model = near_vae((1, 6, 6), radius=2)
    model(binary(4, 1, 6, 6), torch.randn(4, 3)).negative_elbo.mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert model.neighbourhood is not None
    gradient = model.neighbourhood.kernel.weight.grad
    assert gradient is not None
    assert torch.equal(gradient[..., -1, 2:], torch.zeros_like(gradient[..., -1, 2:]))
    assert set(model.edge_parameters) <= set(dict(model.named_parameters()))


def test_the_articles_decoder_has_no_maps_for_neighbours(vae_params):
    with pytest.raises(ValueError, match=r"neighbourhood_radius_pixels must be 0 with .*'article'"):
        vae_params(architecture="article", neighbourhood_radius_pixels=1)
