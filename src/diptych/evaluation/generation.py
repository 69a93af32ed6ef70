"""Samples of the autoencoder, judged by the classifier and by their nearest training image."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from diptych.cnn.model import Cnn
from diptych.evaluation.binarization import binarization_of
from diptych.evaluation.params import GenerateSamplesParams
from diptych.images.batches import ResidentSet, to_unit_interval
from diptych.optimization.compute import Compute
from diptych.optimization.seeding import generator
from diptych.vae.evaluate import posterior_means
from diptych.vae.model import Vae
from diptych.vae.sampling import (
    class_walks,
    decode_probabilities,
    interpolations,
    manifold_latents,
    nearest_distances,
    prior_latents,
    sample_prior,
)

_BATCH_SIZE = 250


@dataclass(frozen=True, slots=True)
class GeneratedImages:
    """Decoded images, as p(pixel = 1), on the CPU.

    Attributes:
        prior: From draws of the prior; zeros and ones where pixels see their neighbours.
        manifold: Over two axes of the latent space.
        starts: Test images where the interpolations begin.
        interpolations: On the line between two test images' latent means.
        ends: Test images where they end.
        class_walks: On a line through each class's mean.
        num_latents: Dimensions of the latent space.
    """

    prior: Float[Tensor, "num channels height width"]
    manifold: Float[Tensor, "side side channels height width"]
    starts: UInt8[np.ndarray, "pair channels height width"]
    interpolations: Float[Tensor, "pair step channels height width"]
    ends: UInt8[np.ndarray, "pair channels height width"]
    class_walks: Float[Tensor, "class column channels height width"]
    num_latents: int


def generate(
    model: Vae,
    train: ResidentSet,
    test: ResidentSet,
    num_classes: int,
    params: GenerateSamplesParams,
    compute: Compute,
) -> GeneratedImages:
    """Decode draws of the prior, and walks through the latent space of real images.

    Args:
        model: On the device, in evaluation mode.
        train: Their latent means span the manifold and the classes' lines.
        test: End points of interpolations are drawn from these.
        num_classes: Number of classes.
        params: How many of each, and the seed.
        compute: Where.
    """

    def decode(latents: Float[Tensor, "row column latents"]) -> Tensor:
        return decode_probabilities(model, latents.flatten(0, 1), compute).unflatten(
            0, latents.shape[:2]
        )

    means = posterior_means(model, binarization_of(train.images, params.seed), compute).cpu()
    num_pairs = min(params.num_interpolations, len(test) // 2)
    chosen = torch.randperm(len(test), generator=generator(params.seed, "pairs"))[: 2 * num_pairs]
    ends = test.images[chosen.to(compute.device)]
    end_means = posterior_means(model, binarization_of(ends, params.seed), compute).cpu()
    lines = interpolations(
        end_means[:num_pairs], end_means[num_pairs:], params.num_interpolation_steps
    )
    walks = class_walks(means, train.labels.cpu(), num_classes, params.num_per_class)
    latents = prior_latents(params.num_samples, model.num_latents, params.seed)
    return GeneratedImages(
        prior=sample_prior(model, latents, _shape_of(train), params.seed, compute),
        manifold=decode(manifold_latents(means, params.manifold_side)),
        starts=ends[:num_pairs].cpu().numpy(),
        interpolations=decode(lines),
        ends=ends[num_pairs:].cpu().numpy(),
        class_walks=decode(walks),
        num_latents=model.num_latents,
    )


def _shape_of(images: ResidentSet) -> tuple[int, int, int]:
    _, channels, height, width = images.images.shape
    return channels, height, width


@torch.no_grad()
def judge_samples(
    samples: Float[Tensor, "num channels height width"],
    training_images: UInt8[Tensor, "num_training channels height width"],
    classifier: Cnn,
    class_names: tuple[str, ...],
    acceptance_confidence: float,
    compute: Compute,
) -> dict[str, Any]:
    """Measure generated images.

    Args:
        samples: Pixel values from 0 to 1.
        training_images: On the device; their nearest is searched.
        classifier: On the device, in evaluation mode.
        class_names: One per class.
        acceptance_confidence: From this calibrated confidence on a sample is accepted.
        compute: Where.

    Returns:
        The share accepted, the share of each predicted class, the entropy of these shares over that
        of perfect balance, and the mean Euclidean distance to the nearest training image.
    """
    references = to_unit_interval(training_images).flatten(1)
    confidences, predictions, distances = [], [], []
    for batch in samples.to(compute.device).split(_BATCH_SIZE):
        with compute.autocast():
            probabilities = classifier.log_probabilities(batch).exp()
        confidences.append(probabilities.amax(dim=1))
        predictions.append(probabilities.argmax(dim=1))
        distances.append(nearest_distances(batch.flatten(1), references))
    accepted = torch.cat(confidences).cpu() >= acceptance_confidence
    counts = torch.bincount(torch.cat(predictions).cpu(), minlength=len(class_names)).double()
    shares = counts / counts.sum()
    entropy = torch.special.entr(shares).sum().item() / math.log(max(len(class_names), 2))
    return {
        "num_samples": len(samples),
        "acceptance_confidence": acceptance_confidence,
        "accepted_share": accepted.double().mean().item(),
        "class_shares": dict(zip(class_names, shares.tolist(), strict=True)),
        "class_shares_normalized_entropy": entropy,
        "mean_nearest_training_distance": torch.cat(distances).cpu().double().mean().item(),
    }
