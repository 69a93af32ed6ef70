"""The evidence lower bound, term by term, and its importance-weighted relatives."""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True)
class ElboTerms:
    """Terms of the evidence lower bound, one value per image, in nats.

    elbo = -(distortion + rate) <= log p(x).  Source: Kingma & Welling (2014), eq. 3.

    Attributes:
        distortion: -E_q[log p(x|z)], estimated with one sample of z.
        rate: KL(q(z|x) || p(z)) >= 0, exact.
    """

    distortion: Float[Tensor, " batch"]
    rate: Float[Tensor, " batch"]

    @property
    def negative_elbo(self) -> Float[Tensor, " batch"]:
        """What training minimises: distortion + rate, in nats per image."""
        return self.distortion + self.rate


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Independent normal distributions, one per image and latent dimension.

    Attributes:
        mean: Of each.
        log_variance: Natural logarithm of each variance.
    """

    mean: Float[Tensor, "batch latents"]
    log_variance: Float[Tensor, "batch latents"]

    def at(self, noise: Float[Tensor, "... batch latents"]) -> Float[Tensor, "... batch latents"]:
        """Return mean + standard deviation * noise: a sample, differentiable in both."""
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def rate(self) -> Float[Tensor, " batch"]:
        """Return KL(this || N(0, 1)) in nats, summed over dimensions.

        Source: Kingma & Welling (2014), appendix B.
        """
        terms = self.mean.square() + self.log_variance.exp() - 1 - self.log_variance
        return 0.5 * terms.sum(dim=1)


def log_prior_over_posterior(
    posterior: Gaussian, noise: Float[Tensor, "... batch latents"]
) -> Float[Tensor, "... batch"]:
    """Return log p(z) - log q(z|x) in nats at z = posterior.at(noise), for the prior N(0, 1).

    The constants of both densities cancel, and (z - mean) / deviation is the noise.
    """
    z = posterior.at(noise)
    return 0.5 * (noise.square() + posterior.log_variance - z.square()).sum(dim=-1)


def importance_weighted_bound(
    log_weights: Float[Tensor, "samples batch"],
) -> Float[Tensor, " batch"]:
    """Return log of the mean weight, a lower bound of log p(x) in nats; tight for many samples.

    Args:
        log_weights: log p(x, z) - log q(z|x) at independent samples of q.

    Source: Burda et al. (2016), eq. 8.
    """
    return log_weights.logsumexp(dim=0) - math.log(len(log_weights))


def active_units(means: Float[Tensor, "num latents"], threshold: float = 0.01) -> int:
    """Return how many latent dimensions carry information: variance of their mean > threshold.

    Source: Burda et al. (2016), section 5.2.
    """
    return int((means.var(dim=0) > threshold).sum().item())
