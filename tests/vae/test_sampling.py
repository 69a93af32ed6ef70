import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from diptych.vae.model import build_vae
from diptych.vae.sampling import (
    class_walks,
    decode_probabilities,
    interpolations,
    manifold_latents,
    nearest_distances,
    normal_quantiles,
    principal_directions,
    prior_latents,
    sample_prior,
)


def cloud(num: int, spreads: list[float], seed: int = 0) -> Tensor:
    """Normal points with these standard deviations along the axes."""
    points = torch.randn(num, len(spreads), generator=torch.Generator().manual_seed(seed))
    return points * torch.tensor(spreads)


def test_a_sample_does_not_depend_on_how_many_are_drawn():
    seven = prior_latents(7, 3, seed=0)
    assert torch.equal(seven[:1], prior_latents(1, 3, seed=0))
    assert len(seven[:, 0].unique()) == 7
    assert not torch.equal(seven, prior_latents(7, 3, seed=1))


def test_samples_are_standard_normal():
    """Mean and variance of 4,000 values, each within 5 standard errors: 1.2e-6 false alarms."""
    values = prior_latents(1000, 4, seed=0)
    assert abs(values.mean()) < 5 / 4000**0.5
    assert abs(values.var() - 1) < 5 * (2 / 4000) ** 0.5


def test_decoding_is_image_by_image(linear_vae, cpu):
    """501 latents take more than one batch."""
    model, latents = linear_vae(num_latents=2), prior_latents(501, 2, seed=0)
    probabilities = decode_probabilities(model, latents, cpu)
    assert probabilities.shape == (501, 1, 2, 2)
    assert not probabilities.requires_grad
    torch.testing.assert_close(probabilities, model.decoder(latents).sigmoid().detach())


def test_prior_samples_are_binary_only_where_pixels_see_neighbours(vae_params, cpu):
    """And image i is the same whatever else is drawn."""
    latents, shape = prior_latents(5, 3, seed=0), (1, 5, 6)
    independent = build_vae(vae_params(), shape).eval()
    expected = decode_probabilities(independent, latents, cpu)
    assert torch.equal(sample_prior(independent, latents, shape, 0, cpu), expected)
    near = build_vae(vae_params(neighbourhood_radius_pixels=1), shape).eval()
    images = sample_prior(near, latents, shape, 0, cpu)
    assert set(images.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(sample_prior(near, latents[:2], shape, 0, cpu), images[:2])
    assert not torch.equal(sample_prior(near, latents, shape, 1, cpu), images)


def test_quantiles_cut_the_normal_into_equal_shares():
    shares = Normal(0.0, 1.0).cdf(normal_quantiles(5))
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]))
    torch.testing.assert_close(normal_quantiles(1), torch.zeros(1))


def test_principal_directions_are_those_of_largest_spread():
    means = cloud(5000, [0.1, 2.0, 0.5, 1.0]) + 7
    axes = principal_directions(means)
    expected = torch.tensor([[0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    torch.testing.assert_close(axes, expected, atol=0.1, rtol=0)
    assert abs(axes[0] @ axes[1]) < 1e-5
    projected = (means - means.mean(dim=0)) @ (axes / axes.norm(dim=1, keepdim=True)).T
    torch.testing.assert_close(projected.std(dim=0), axes.norm(dim=1))


def test_the_sign_of_a_direction_is_fixed():
    means = cloud(100, [1.0, 3.0, 2.0])
    torch.testing.assert_close(principal_directions(means), principal_directions(-means))
    assert (principal_directions(means).amax(dim=1) > 0.9).all()


def test_with_one_latent_there_is_one_direction():
    axes = principal_directions(torch.tensor([[0.0], [2.0], [4.0]]))
    torch.testing.assert_close(axes, torch.tensor([[2.0], [0.0]]))


def test_two_latents_are_shown_as_they_are_at_the_priors_scale():
    grid = manifold_latents(cloud(50, [5.0, 0.1]) + 3, num_per_side=3)
    low, high = normal_quantiles(3)[[0, 2]].tolist()
    expected = [
        [[low, high], [0, high], [high, high]],
        [[low, 0], [0, 0], [high, 0]],
        [[low, low], [0, low], [high, low]],
    ]
    torch.testing.assert_close(grid, torch.tensor(expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize("num_latents", [1, 3, 8])
def test_more_latents_are_shown_along_the_principal_directions(num_latents):
    means = cloud(200, [3.0, 2.0, *[0.5] * 6][:num_latents]) + 1
    grid = manifold_latents(means, num_per_side=5)
    assert grid.shape == (5, 5, num_latents)
    centre, quantiles = means.mean(dim=0), normal_quantiles(5)
    right, up = principal_directions(means)
    torch.testing.assert_close(grid[2, 2], centre)
    torch.testing.assert_close(grid[2, 4], centre + quantiles[4] * right)
    torch.testing.assert_close(grid[0, 2], centre + quantiles[4] * up)


def test_interpolations_go_straight_from_start_to_end():
    starts, ends = cloud(4, [1.0, 1.0, 1.0]), cloud(4, [1.0, 1.0, 1.0], seed=1)
    lines = interpolations(starts, ends, num_steps=5)
    assert lines.shape == (4, 5, 3)
    assert torch.equal(lines[:, 0], starts)
    assert torch.equal(lines[:, -1], ends)
    torch.testing.assert_close(lines[:, 2], (starts + ends) / 2)
    steps = lines.diff(dim=1)
    torch.testing.assert_close(steps, steps[:, :1].expand(-1, 4, -1))


def test_a_class_walks_through_its_mean_along_its_own_spread():
    centres = torch.tensor([[10.0, 0.0, 0.0], [0.0, -10.0, 0.0]])
    first, second = cloud(500, [2.0, 0.1, 0.1]), cloud(500, [0.1, 0.1, 3.0], seed=1)
    means = torch.cat([first + centres[0], second + centres[1]])
    labels = torch.tensor([0] * 500 + [1] * 500)
    walks = class_walks(means, labels, num_classes=3, num_steps=5)
    assert walks.shape == (3, 5, 3)
    members = [means[labels == 0], means[labels == 1], means]  # the third class has no images
    for walk, own in zip(walks, members, strict=True):
        torch.testing.assert_close(walk[2], own.mean(dim=0), atol=1e-5, rtol=0)
    ends = normal_quantiles(5)[4] * torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
    torch.testing.assert_close(walks[:2, 4] - walks[:2, 2], ends, atol=0.4, rtol=0)


def test_the_nearest_reference_counts():
    images = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    references = torch.tensor([[0.3, 0.4], [1.0, 0.0], [1.0, 1.0]])
    torch.testing.assert_close(nearest_distances(images, references), torch.tensor([0.5, 0.0]))
