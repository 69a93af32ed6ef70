"""The autoencoder on the test set."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from diptych.evaluation.binarization import binarization_of
from diptych.evaluation.params import EvaluateParams
from diptych.images.batches import ResidentSet, to_pixels
from diptych.optimization.compute import Compute
from diptych.vae.elbo import active_units
from diptych.vae.evaluate import evaluate_elbo, evaluate_log_likelihood, posterior_means
from diptych.vae.model import Vae


@dataclass(frozen=True, slots=True)
class AutoencoderEvaluation:
    """What the autoencoder does on a whole set.

    Attributes:
        figures: For the metrics file.
        per_image: One row per image, in the set's order.
        latent_means: Mean of q(z|x) of each image.
        shown: The first images.
    """

    figures: dict[str, Any]
    per_image: pd.DataFrame
    latent_means: Float32[np.ndarray, "num latents"]
    shown: "Reconstructions"


@dataclass(frozen=True, slots=True)
class Reconstructions:
    """The first images of a set as the autoencoder sees them, and what it makes of them.

    Attributes:
        inputs: Binarised: 0 or 255.
        reconstructions: p(pixel = 1) at the mean of q(z|x), from 0 to 255.
        distortions_nats: -log p(x|z) of the inputs, there.
    """

    inputs: UInt8[np.ndarray, "num_shown channels height width"]
    reconstructions: UInt8[np.ndarray, "num_shown channels height width"]
    distortions_nats: Float32[np.ndarray, " num_shown"]


def evaluate_autoencoder(
    model: Vae,
    images: ResidentSet,
    params: EvaluateParams,
    compute: Compute,
) -> AutoencoderEvaluation:
    """Take the bound and the likelihood of every image of a set, binarised once.

    Args:
        model: In evaluation mode, on the device.
        images: The set, on the device.
        params: Importance samples and seed.
        compute: Where.
    """
    binary = binarization_of(images.images, params.seed)
    terms = evaluate_elbo(model, binary, params.seed, compute)
    nll = -evaluate_log_likelihood(
        model, binary, params.num_importance_samples, params.seed, compute
    )
    means = posterior_means(model, binary, compute)
    num_dims = math.prod(images.images.shape[1:])
    columns = {
        "negative_elbo_nats": terms.negative_elbo,
        "rate_nats": terms.rate,
        "distortion_nats": terms.distortion,
        "nll_nats": nll,
    }
    columns = {name: values.cpu().double() for name, values in columns.items()}
    figures = {name: values.mean().item() for name, values in columns.items()}
    return AutoencoderEvaluation(
        figures={
            **figures,
            "nll_standard_error_nats": columns["nll_nats"].std().item() / math.sqrt(len(nll)),
            "nll_num_importance_samples": params.num_importance_samples,
            "bits_per_dim": figures["nll_nats"] / (num_dims * math.log(2)),
            "active_units": active_units(means),
            "num_latents": model.num_latents,
            "num_images": len(images),
            "binarization_seed": params.seed,
            "likelihood": model.likelihood,
            "binarization": model.binarization,
        },
        per_image=pd.DataFrame({name: values.numpy() for name, values in columns.items()}),
        latent_means=means.cpu().numpy(),
        shown=reconstruct(model, binary[: params.num_reconstructions], compute),
    )


@torch.no_grad()
def reconstruct(
    model: Vae, images: Float[Tensor, "num_shown channels height width"], compute: Compute
) -> Reconstructions:
    """Decode the mean of q(z|x) of binary images."""
    with compute.autocast():
        means = model.encode(images).mean
        reconstructions = model.probabilities(means)
        distortions = -model.log_likelihood(means[None], images)[0]
    return Reconstructions(
        inputs=to_pixels(images),
        reconstructions=to_pixels(reconstructions),
        distortions_nats=distortions.cpu().numpy(),
    )
