"""Which images an epoch sees: the hard ones, and a sample of the others."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def num_images_seen(num_images: int, epoch: int, pruned_fraction: float) -> int:
    """Return how many images an epoch sees: all in the first, fewer in the others.

    Args:
        num_images: Of the training set.
        epoch: 1-based.
        pruned_fraction: Share of the images that later epochs leave out, in [0, 1).
    """
    if epoch == 1:
        return num_images
    return min(num_images, max(2, round(num_images * (1 - pruned_fraction))))


def select_images(
    losses: Float[Tensor, " num"], num_selected: int, generator: torch.Generator
) -> tuple[Int64[Tensor, " num_selected"], Float[Tensor, " num_selected"]]:
    """Choose the hardest images and a random sample of the rest, and weigh them.

    The weights make the mean over the chosen images an unbiased estimate of the mean over all.

    Source: after Qin et al. (2024), "InfoBatch", which keeps every image above the mean loss,
    samples the others, and sees all of them in the last epochs; here the hardest are half of the
    chosen ones, so that every epoch has the same size on every data set.

    Args:
        losses: Of each image, when it was last seen.
        num_selected: From 1 to num; of 1 that is drawn.
        generator: On the CPU, so that the choice is the same on every device.

    Returns:
        Positions, in random order, and the weight of each.
    """
    num_images = len(losses)
    num_hard = num_selected // 2
    num_sampled = num_selected - num_hard
    ranked = losses.argsort(descending=True, stable=True)
    hard, rest = ranked[:num_hard], ranked[num_hard:]
    sampled = rest[_shuffled(len(rest), generator, losses.device)[:num_sampled]]
    weights = torch.full((num_selected,), num_selected / num_images, device=losses.device)
    weights[num_hard:] *= len(rest) / num_sampled
    order = _shuffled(num_selected, generator, losses.device)
    return torch.cat([hard, sampled])[order], weights[order]


def _shuffled(num: int, generator: torch.Generator, device: torch.device) -> Int64[Tensor, " num"]:
    return torch.randperm(num, generator=generator).to(device)
