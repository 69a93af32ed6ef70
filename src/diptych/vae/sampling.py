"""New images, and walks through the latent space."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from diptych.optimization.compute import Compute
from diptych.optimization.seeding import generator
from diptych.vae.model import Vae

_BATCH_SIZE = 500


def prior_latents(num_images: int, num_latents: int, seed: int) -> Float[Tensor, "num latents"]:
    """Draw latents from the prior; image i is a function of (seed, i) alone. On the CPU."""
    return torch.stack(
        [torch.randn(num_latents, generator=generator(seed, "prior", i)) for i in range(num_images)]
    )


@torch.no_grad()
def decode_probabilities(
    model: Vae, latents: Float[Tensor, "num latents"], compute: Compute
) -> Float[Tensor, "num channels height width"]:
    """Return p(pixel = 1 | z), as `Vae.probabilities` defines it, on the CPU."""
    parts = []
    for batch in latents.to(compute.device).split(_BATCH_SIZE):
        with compute.autocast():
            parts.append(model.probabilities(batch).cpu())
    return torch.cat(parts)


@torch.no_grad()
def sample_prior(
    model: Vae,
    latents: Float[Tensor, "num latents"],
    shape: tuple[int, int, int],
    seed: int,
    compute: Compute,
) -> Float[Tensor, "num channels height width"]:
    """Return images of draws of the prior, on the CPU; image i is a function of its latents and i.

    Where pixels are independent given z these are p(pixel = 1 | z), free of the pixels' own noise.
    Else they are samples of zeros and ones: probabilities alone would say nothing of p(x).

    Args:
        model: On the device, in evaluation mode.
        latents: From the prior.
        shape: Channels, height and width.
        seed: Of the pixels.
        compute: Where.
    """
    if model.neighbourhood is None:
        return decode_probabilities(model, latents, compute)
    uniforms = torch.stack(
        [torch.rand(shape, generator=generator(seed, "pixels", i)) for i in range(len(latents))]
    )
    parts = []
    for batch, draws in zip(latents.split(_BATCH_SIZE), uniforms.split(_BATCH_SIZE), strict=True):
        with compute.autocast():
            images = model.sample(batch.to(compute.device), draws.to(compute.device))
        parts.append(images.cpu())
    return torch.cat(parts)


def principal_directions(means: Float[Tensor, "num latents"]) -> Float[Tensor, "2 latents"]:
    """Return the two orthogonal directions in which latents vary most.

    Each has the length of one standard deviation, and its largest component is positive. With one
    latent the second direction is 0.
    """
    variances, directions = torch.linalg.eigh(torch.atleast_2d(torch.cov(means.double().T)))
    axes = torch.zeros(2, means.shape[1], dtype=torch.float64)
    num_axes = min(2, means.shape[1])
    largest = directions.T.flip(0)[:num_axes]  # eigh's order is ascending
    signs = largest.gather(1, largest.abs().argmax(dim=1, keepdim=True)).sign()
    scales = variances.flip(0)[:num_axes, None].clamp_min(0).sqrt()
    axes[:num_axes] = largest * signs * scales
    return axes.to(means.dtype)


def manifold_latents(
    means: Float[Tensor, "num latents"], num_per_side: int
) -> Float[Tensor, "row column latents"]:
    """Return a grid of latents at normal quantiles along two axes; values rise rightwards and up.

    With two latents the axes are the latents themselves, at the prior's scale; with more they are
    the two principal directions around the mean.

    Args:
        means: Latent means of training images.
        num_per_side: Rows and columns.
    """
    if means.shape[1] == 2:
        centre, axes = torch.zeros(2), torch.eye(2)
    else:
        centre, axes = means.mean(dim=0), principal_directions(means)
    quantiles = normal_quantiles(num_per_side)
    across = quantiles[None, :, None] * axes[0]
    up = quantiles.flip(0)[:, None, None] * axes[1]
    return centre + across + up


def interpolations(
    starts: Float[Tensor, "row latents"], ends: Float[Tensor, "row latents"], num_steps: int
) -> Float[Tensor, "row column latents"]:
    """Return latents on straight lines, end points included."""
    shares = torch.linspace(0, 1, num_steps)[None, :, None]
    return starts[:, None] * (1 - shares) + ends[:, None] * shares


def class_walks(
    means: Float[Tensor, "num latents"],
    labels: Int64[Tensor, " num"],
    num_classes: int,
    num_steps: int,
) -> Float[Tensor, "classes column latents"]:
    """Return a line of latents through each class's mean, along the class's own main direction.

    A class without images walks through the mean of all.

    Args:
        means: Latent means of training images.
        labels: Their classes.
        num_classes: Rows.
        num_steps: Columns, at normal quantiles of the class's spread along its line.
    """
    rows = []
    for k in range(num_classes):
        members = means[labels == k]
        members = members if len(members) > 1 else means
        direction = principal_directions(members)[0]
        rows.append(members.mean(dim=0) + normal_quantiles(num_steps)[:, None] * direction)
    return torch.stack(rows)


def normal_quantiles(num_steps: int) -> Float[Tensor, " steps"]:
    """Return evenly likely values of a standard normal, ascending."""
    shares = (torch.arange(num_steps) + 0.5) / num_steps
    return torch.distributions.Normal(0.0, 1.0).icdf(shares)


def nearest_distances(
    images: Float[Tensor, "num pixels"], references: Float[Tensor, "num_references pixels"]
) -> Float[Tensor, " num"]:
    """Return each image's Euclidean distance to the nearest reference, pixels from 0 to 1."""
    return torch.cdist(images, references).amin(dim=1)
