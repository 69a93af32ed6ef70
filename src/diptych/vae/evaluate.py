"""Bounds and likelihoods of a whole set of images, every image once."""

import math

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from diptych.optimization.compute import Compute
from diptych.optimization.seeding import generator
from diptych.vae.elbo import ElboTerms, importance_weighted_bound
from diptych.vae.likelihood import binarize
from diptych.vae.model import Vae

# Neither changes a figure: noise belongs to an image, not to its batch.
_BATCH_SIZE = 500
_DECODED_AT_ONCE = 2000
_NOISE_AT_ONCE = 10_000_000  # numbers


def binarized_once(
    images: UInt8[Tensor, "num channels height width"], seed: int
) -> Float[Tensor, "num channels height width"]:
    """Return one binarisation of a set: the same for the same seed and device."""
    return binarize(images, generator(seed, "binarization", device=images.device))


@torch.no_grad()
def evaluate_elbo(
    model: Vae, images: Float[Tensor, "num channels height width"], seed: int, compute: Compute
) -> ElboTerms:
    """Return the bound's terms of binary images, with one sample of z each."""
    noise_source = generator(seed, "elbo", device=compute.device)
    shape = (len(images), model.num_latents)
    noises = torch.randn(shape, generator=noise_source, device=compute.device)
    parts = []
    for batch, noise in zip(images.split(_BATCH_SIZE), noises.split(_BATCH_SIZE), strict=True):
        with compute.autocast():
            parts.append(model(batch, noise))
    return ElboTerms(
        distortion=torch.cat([part.distortion for part in parts]),
        rate=torch.cat([part.rate for part in parts]),
    )


@torch.no_grad()
def evaluate_log_likelihood(
    model: Vae,
    images: Float[Tensor, "num channels height width"],
    num_samples: int,
    seed: int,
    compute: Compute,
) -> Float[Tensor, " num"]:
    """Return the importance-weighted bound of log p(x) of binary images, in nats.

    Args:
        model: In evaluation mode.
        images: Zeros and ones.
        num_samples: Importance samples per image.
        seed: Of the samples; those of image i are a function of (seed, i) alone.
        compute: Where.

    Source: Burda et al. (2016), eq. 8.
    """
    shape = (num_samples, model.num_latents)
    batch_size = max(1, min(_BATCH_SIZE, _NOISE_AT_ONCE // math.prod(shape)))
    bounds = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        sources = (
            generator(seed, "importance", start + i, device=compute.device)
            for i in range(len(batch))
        )
        draws = [torch.randn(shape, generator=s, device=compute.device) for s in sources]
        noises = torch.stack(draws, dim=1).split(max(1, _DECODED_AT_ONCE // len(batch)))
        with compute.autocast():
            posterior = model.encode(batch)
            parts = [model.log_weights(batch, posterior, noise) for noise in noises]
        bounds.append(importance_weighted_bound(torch.cat(parts)))
    return torch.cat(bounds)


@torch.no_grad()
def posterior_means(
    model: Vae, images: Float[Tensor, "num channels height width"], compute: Compute
) -> Float[Tensor, "num latents"]:
    """Return the mean of q(z|x) of binary images."""
    with compute.autocast():
        return torch.cat([model.encode(batch).mean for batch in images.split(_BATCH_SIZE)])
