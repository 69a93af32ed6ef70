"""How unlike the training images an image is: a p-value from the autoencoder's bound.

A module of its own, beside `pair`: training fits the reference and must not run again when the pair
changes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float32, Float64, UInt8
from torch import Tensor, nn

from diptych.images.batches import to_unit_interval
from diptych.optimization.seeding import generator
from diptych.vae.model import Vae

PREFIX = "novelty."
"""Begins the names of the reference's tensors among those of an autoencoder."""

_NUM_DRAWS = 4
_MAX_REFERENCE = 10_000  # images; more would make no p-value much finer
_BATCH_SIZE = 250
# Last bits depend on the batch and the machine; coarser scores keep their order and their ties.
_STEPS_PER_NAT = 64


@dataclass(frozen=True, slots=True)
class NoveltyReference:
    """What an image is scored with, and the scores of validation images to compare it with.

    The random numbers are the same for every image, so that a score is a function of the image.

    Attributes:
        uniforms: Of the one binarisation: a pixel is 1 where its uniform is below value / 255.
        noise: Standard normal; a sample of z for each draw.
        scores_nats: Of the validation images, ascending.
    """

    uniforms: Float32[Tensor, "channels height width"]
    noise: Float32[Tensor, "draws latents"]
    scores_nats: Float32[Tensor, " reference"]

    def state(self) -> dict[str, Tensor]:
        """Return the tensors under the names that they have beside the autoencoder's weights."""
        return {f"{PREFIX}{field.name}": getattr(self, field.name) for field in fields(self)}


def split_state(
    state: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return an autoencoder's own tensors, and those of its novelty reference under short names."""
    own = {name: tensor for name, tensor in state.items() if not name.startswith(PREFIX)}
    reference = {
        name.removeprefix(PREFIX): tensor
        for name, tensor in state.items()
        if name.startswith(PREFIX)
    }
    return own, reference


class NoveltyDetector(nn.Module):
    """Tells whether an image's negative ELBO is usual; in float32, however the model was trained.

    Args:
        vae: In evaluation mode.
        reference: Fitted with this autoencoder.
    """

    uniforms: Tensor
    noise: Tensor
    reference_nats: Tensor

    def __init__(self, vae: Vae, reference: NoveltyReference) -> None:
        super().__init__()
        self.vae = vae
        self.register_buffer("uniforms", reference.uniforms)
        self.register_buffer("noise", reference.noise)
        self.register_buffer("reference_nats", reference.scores_nats)

    def scores_nats(
        self, images: UInt8[Tensor, "num channels height width"]
    ) -> Float32[Tensor, " num"]:
        """Return each image's negative ELBO, its distortion meaned over draws, to 1/64 nat.

        Args:
            images: On the detector's device.
        """
        return torch.cat([self._scores(batch) for batch in images.split(_BATCH_SIZE)])

    @torch.no_grad()
    def _scores(self, images: Tensor) -> Tensor:
        binary = (self.uniforms < to_unit_interval(images)).float()
        posterior = self.vae.encode(binary)
        latents = posterior.at(self.noise[:, None].expand(-1, len(images), -1))
        negative_elbo = posterior.rate() - self.vae.log_likelihood(latents, binary).mean(dim=0)
        return (negative_elbo * _STEPS_PER_NAT).round() / _STEPS_PER_NAT

    def p_values(self, scores_nats: Float32[Tensor, " num"]) -> Float64[Tensor, " num"]:
        """Return two-sided conformal p-values of scores, in the CPU's memory.

        A blank image's bound is too good, so both tails count: p = 2 min(p_high, p_low), at most 1,
        with p_high = (1 + number of reference scores >= score) / (1 + number of them). An image
        that is exchangeable with the validation images has p <= a with probability at most a.
        A score that is not a number has the smallest p.

        Source: Vovk et al. (2005), "Algorithmic learning in a random world", section 2.2.
        """
        num = len(self.reference_nats)
        num_higher = num - torch.searchsorted(self.reference_nats, scores_nats)
        num_lower = torch.searchsorted(self.reference_nats, scores_nats, right=True)
        tail = (1 + torch.minimum(num_higher, num_lower)).cpu().double() / (1 + num)
        return (2 * tail).clamp(max=1)

    def accepted_range_nats(self, level: float) -> tuple[float, float]:
        """Return the least and the greatest score whose p-value is above a level, in [0, 1).

        Infinite when the reference is too small for any score to have a p-value down to the level.
        """
        place = math.floor(level / 2 * (1 + len(self.reference_nats)))
        if place == 0:
            return -math.inf, math.inf
        low, high = self.reference_nats[[place - 1, -place]].tolist()
        return low, high


def fit_novelty(
    model: Vae, images: UInt8[Tensor, "num channels height width"], seed: int
) -> NoveltyReference:
    """Score images that the model was not trained on.

    Args:
        model: In evaluation mode.
        images: Validation images, on the model's device; of more than 10,000, so many are drawn.
        seed: Of all draws. They are made on the CPU: the same on every device.
    """

    def source(purpose: str) -> torch.Generator:
        return generator(seed, "novelty", purpose)

    shape = images.shape[1:]
    chosen = torch.randperm(len(images), generator=source("reference"))[:_MAX_REFERENCE]
    unfitted = NoveltyReference(
        uniforms=torch.rand(shape, generator=source("uniforms")).to(images.device),
        noise=torch.randn(_NUM_DRAWS, model.num_latents, generator=source("noise")).to(
            images.device
        ),
        scores_nats=torch.zeros(0, device=images.device),
    )
    scores = NoveltyDetector(model, unfitted).scores_nats(images[chosen.to(images.device)])
    return NoveltyReference(unfitted.uniforms, unfitted.noise, scores.sort().values)
