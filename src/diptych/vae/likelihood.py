"""Binarised pixels and their likelihood."""

import math
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.autograd.function import once_differentiable

_INT64 = torch.iinfo(torch.int64)


def binarize(
    images: UInt8[Tensor, "batch channels height width"], generator: torch.Generator
) -> Float[Tensor, "batch channels height width"]:
    """Draw each pixel as 1 with probability value / 255, rounded to a multiple of 2^-16, else 0.

    A word of 64 random bits serves four pixels: on a CPU, whose generators are serial, drawing a
    float for each takes longer than a small model's layers.

    Args:
        images: Grey (or colour) values from 0 to 255; 0 and 255 are certain.
        generator: On the images' device.

    Returns:
        Zeros and ones. Source: Salakhutdinov & Murray (2008); Burda et al. (2016), section 5.
    """
    num_words = math.ceil(images.numel() / 4)
    words = torch.empty(num_words, dtype=torch.int64, device=images.device)
    words.random_(_INT64.min, None, generator=generator)
    draws = words.view(torch.int16)[: images.numel()].view_as(images).float()
    # Of the 2^16 draws from -2^15 on, those below have the wanted share; the half rounds.
    return draws.lt_(images.float().mul_(2**16 / 255).sub_(2**15 + 0.5))


def bernoulli_log_likelihood(
    logits: Float[Tensor, "... channels height width"],
    images: Float[Tensor, "... channels height width"],
) -> Float[Tensor, "..."]:
    """Return log p(x | logits) <= 0 in nats, summed over an image's pixels.

    Differentiable once, in the logits.

    Args:
        logits: log p(pixel = 1) - log p(pixel = 0); of any precision, summed in float32.
        images: Zeros and ones, broadcast against the logits.
    """
    result: Tensor = _BernoulliLogLikelihood.apply(logits, images)
    return result


class _BernoulliLogLikelihood(torch.autograd.Function):
    """log sigmoid(m) = min(m, 0) + log sigmoid(|m|), where m is the log-odds of the pixel's value.

    The logarithm of a sigmoid in [1/2, 1) does without the log1p of torch's logsigmoid: what that
    loses is below 1e-7 nats per pixel. The gradient has a closed form of one sigmoid.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, images: Tensor) -> Tensor:
        ctx.save_for_backward(logits, images)
        log_odds = (2 * images - 1).mul(logits)  # float32, as images are
        log_likelihoods = log_odds.clamp_max(0).add_(log_odds.abs_().sigmoid_().log_())
        return log_likelihoods.flatten(-3).sum(dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        logits, images = ctx.saved_tensors
        slopes = (images - logits.float().sigmoid()).mul_(gradient[..., None, None, None])
        return slopes.to(logits.dtype), None
