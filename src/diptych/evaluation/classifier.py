"""The classifier on the test set."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from diptych.cnn.metrics import classifier_metrics
from diptych.cnn.model import Cnn
from diptych.cnn.train import predict_logits
from diptych.images.batches import ResidentSet
from diptych.optimization.compute import Compute


@dataclass(frozen=True, slots=True)
class ClassifierEvaluation:
    """What the classifier does on a whole set.

    Attributes:
        figures: For the metrics file; `uncalibrated` holds those at temperature 1.
        per_image: One row per image, in the set's order.
        probabilities: Calibrated.
        uncalibrated_probabilities: At temperature 1.
    """

    figures: dict[str, Any]
    per_image: pd.DataFrame
    probabilities: Float64[np.ndarray, "num classes"]
    uncalibrated_probabilities: Float64[np.ndarray, "num classes"]


def evaluate_classifier(model: Cnn, images: ResidentSet, compute: Compute) -> ClassifierEvaluation:
    """Predict every image once."""
    logits = predict_logits(model, images, compute).cpu().double()
    labels = images.labels.cpu()
    log_probabilities = (logits / model.temperature.item()).log_softmax(dim=1)
    uncalibrated = logits.log_softmax(dim=1)
    nll = -log_probabilities.gather(1, labels[:, None])[:, 0]
    per_image = pd.DataFrame(
        {
            "label": labels.numpy(),
            "prediction": log_probabilities.argmax(dim=1).numpy(),
            "confidence": log_probabilities.amax(dim=1).exp().numpy(),
            "label_nll_nats": nll.numpy(),
        }
    )
    before = classifier_metrics(uncalibrated, labels)
    return ClassifierEvaluation(
        figures={
            **asdict(classifier_metrics(log_probabilities, labels)),
            "temperature": model.temperature.item(),
            "uncalibrated": {"nll_nats": before.nll_nats, "ece": before.ece},
        },
        per_image=per_image,
        probabilities=log_probabilities.exp().numpy(),
        uncalibrated_probabilities=uncalibrated.exp().numpy(),
    )
