"""Binarised pixels and their likelihood."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from diptych.images.batches import to_unit_interval


def binarize(
    images: UInt8[Tensor, "batch channels height width"], generator: torch.Generator
) -> Float[Tensor, "batch channels height width"]:
    """Draw each pixel as 1 with probability value / 255, else 0.

    Args:
        images: Grey (or colour) values from 0 to 255; 0 and 255 are certain.
        generator: On the images' device.

    Returns:
        Zeros and ones. Source: Salakhutdinov & Murray (2008); Burda et al. (2016), section 5.
    """
    intensities = to_unit_interval(images)
    draws = torch.rand(intensities.shape, generator=generator, device=images.device)
    return (draws < intensities).float()


def bernoulli_log_likelihood(
    logits: Float[Tensor, "... channels height width"],
    images: Float[Tensor, "... channels height width"],
) -> Float[Tensor, "..."]:
    """Return log p(x | logits) <= 0 in nats, summed over an image's pixels.

    Args:
        logits: log p(pixel = 1) - log p(pixel = 0); of any precision, summed in float32.
        images: Zeros and ones, broadcast against the logits.
    """
    logits = logits.float()
    return (images * logits - functional.softplus(logits)).flatten(-3).sum(dim=-1)
