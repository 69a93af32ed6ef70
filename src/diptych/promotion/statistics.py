"""Paired tests of two models on the same images: is one better, is it not worse?

All are one-sided, and their p-values are about the candidate: `gained` counts the images that only
the candidate gets right, `lost` those that only the champion gets right.
"""

import hashlib
import math

import numpy as np
from jaxtyping import Float64


def mcnemar_p_value(gained: int, lost: int) -> float:
    """Return P(at least so many gains) if gains and losses are equally likely.

    The exact test of "not more accurate" against "more accurate"; images on which both models are
    right, or both wrong, say nothing.

    Args:
        gained: Images that only the candidate gets right.
        lost: Images that only the champion gets right.

    Source: McNemar (1947), with the binomial distribution in place of its approximation.
    """
    from scipy.special import bdtrc  # type: ignore[import-untyped]

    return float(bdtrc(gained - 1, gained + lost, 0.5))


def not_less_accurate_p_value(gained: int, lost: int, num_images: int, margin: float) -> float:
    """Return the p-value of "less accurate by the margin or more"; small: the loss is ruled out.

    The score test: the variance is that of the most likely probabilities of gain and loss whose
    difference is the margin. At margin 0 the statistic is McNemar's.

    Args:
        gained: Images that only the candidate gets right.
        lost: Images that only the champion gets right.
        num_images: All images, >= 1.
        margin: Loss of accuracy, as a share of all images, in (0, 1).

    Raises:
        ValueError: when the margin is 0, where a test without any difference is undefined.

    Source: Tango (1998), section 2.
    """
    if not 0 < margin < 1:
        raise ValueError(f"margin: must be in (0, 1) (got {margin})")
    b = gained + lost + margin * (2 * num_images - gained + lost)
    c = lost * margin * (1 + margin)
    loss = (b + math.sqrt(b * b - 8 * num_images * c)) / (4 * num_images)  # > 0: P(lost)
    variance = num_images * (2 * loss - margin * (1 + margin))  # of gained - lost
    z = (gained - lost + num_images * margin) / math.sqrt(variance)
    return math.erfc(z / math.sqrt(2)) / 2


def bootstrapped_means(
    values: Float64[np.ndarray, " image"],
    num_resamples: int,
    generator: np.random.Generator,
) -> Float64[np.ndarray, " resample"]:
    """Return the mean of each of many samples, drawn with replacement, of the values' own size.

    Of differences of two models on the same images, this is the paired bootstrap.

    Args:
        values: One per image, finite; at least one.
        num_resamples: >= 1.
        generator: What draws them.

    Source: Efron & Tibshirani (1993), chapter 6.
    """
    num_values = len(values)
    batch_size = max(1, 4_000_000 // num_values)
    means = [
        values[generator.integers(num_values, size=(size, num_values))].mean(axis=1)
        for start in range(0, num_resamples, batch_size)
        if (size := min(batch_size, num_resamples - start))
    ]
    return np.concatenate(means)


def bootstrap_p_value(means: Float64[np.ndarray, " resample"], margin: float) -> float:
    """Return the p-value of "the mean is at or above the margin"; small: it is below.

    It is at most the level where the one-sided percentile interval lies below the margin.

    Args:
        means: Of resamples, as `bootstrapped_means` returns them.
        margin: In the unit of the values.

    Returns:
        In (0, 1]; at least 1 / (resamples + 1).

    Source: Efron & Tibshirani (1993), chapter 15; Davison & Hinkley (1997), section 4.2.
    """
    return float(1 + np.count_nonzero(means >= margin)) / (1 + len(means))


def comparison_generator(candidate_sha256: str, champion_sha256: str) -> np.random.Generator:
    """Return randomness that is a function of the two models, so that a verdict can be repeated.

    Args:
        candidate_sha256: Of the candidate's weights.
        champion_sha256: Of the champion's weights.
    """
    digest = hashlib.sha256(f"{candidate_sha256}:{champion_sha256}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))
