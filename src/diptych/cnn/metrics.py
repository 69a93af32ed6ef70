"""How good a classifier and its probabilities are."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class ClassifierMetrics:
    """Figures over a whole set of images.

    Attributes:
        accuracy: Share of images whose most probable class is the right one.
        nll_nats: Mean of -log p(label), in nats per image.
        ece: Expected calibration error: mean |accuracy - confidence|, over bins of confidence.
        num_images: Size of the set.
        per_class_accuracy: One per class; None for a class without images.
    """

    accuracy: float
    nll_nats: float
    ece: float
    num_images: int
    per_class_accuracy: tuple[float | None, ...]


def classifier_metrics(
    log_probabilities: Float[Tensor, "num classes"], labels: Int64[Tensor, " num"]
) -> ClassifierMetrics:
    """Compare predicted log-probabilities, in nats, with labels."""
    # Not every device has float64.
    log_probabilities, labels = log_probabilities.cpu(), labels.cpu()
    correct = log_probabilities.argmax(dim=1) == labels
    confidence = log_probabilities.amax(dim=1).exp()
    num_classes = log_probabilities.shape[1]
    return ClassifierMetrics(
        accuracy=correct.double().mean().item(),
        nll_nats=functional.nll_loss(log_probabilities.double(), labels).item(),
        ece=expected_calibration_error(confidence, correct),
        num_images=len(labels),
        per_class_accuracy=tuple(
            correct[labels == k].double().mean().item() if (labels == k).any() else None
            for k in range(num_classes)
        ),
    )


def expected_calibration_error(
    confidence: Float[Tensor, " num"], correct: Bool[Tensor, " num"], num_bins: int = 15
) -> float:
    """Return the mean over images of |accuracy - mean confidence| of the image's bin.

    Bins have equal width on [0, 1]. Source: Naeini et al. (2015); Guo et al. (2017), eq. 3.
    """
    bins = (confidence * num_bins).ceil().long().clamp(1, num_bins) - 1
    confidence, correct, bins = confidence.cpu(), correct.cpu(), bins.cpu()
    gaps = torch.zeros(num_bins, dtype=torch.float64)
    gaps.index_add_(0, bins, correct.double() - confidence.double())
    return (gaps.abs().sum() / len(confidence)).item()


def fit_temperature(logits: Float[Tensor, "num classes"], labels: Int64[Tensor, " num"]) -> float:
    """Return the temperature > 0 that minimises the mean of -log softmax(logits / T)[label].

    The objective is convex in 1/T, so a bisection of its derivative finds the minimum.

    Source: Guo et al. (2017), section 4.2.
    """
    logits, labels = logits.cpu().double(), labels.cpu()
    target = logits.gather(1, labels[:, None]).mean()
    low, high = 1e-2, 1e2  # of 1/T
    for _ in range(60):
        middle = (low * high) ** 0.5
        expected = ((middle * logits).softmax(dim=1) * logits).sum(dim=1).mean()
        low, high = (low, middle) if expected > target else (middle, high)
    return 1 / (low * high) ** 0.5
