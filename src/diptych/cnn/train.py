"""Train the classifier."""

import copy
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from diptych.cnn.augmentation import augment
from diptych.cnn.metrics import ClassifierMetrics, classifier_metrics, fit_temperature
from diptych.cnn.model import Cnn
from diptych.cnn.params import CnnTrainingParams
from diptych.images.batches import (
    ResidentSet,
    epoch_batches,
    num_steps_per_epoch,
    to_unit_interval,
)
from diptych.optimization.compute import Compute
from diptych.optimization.optimizers import ScheduledOptimizer
from diptych.optimization.progress import EpochReport, OnEpoch, require_finite
from diptych.optimization.seeding import generator

_EVALUATION_BATCH_SIZE = 1000


@dataclass(frozen=True, slots=True)
class TrainedCnn:
    """A trained classifier.

    Attributes:
        model: With the weights of the best epoch, calibrated, in evaluation mode.
        best_epoch: 1-based; the one of highest validation accuracy, then lowest validation NLL.
        uncalibrated: Validation figures at temperature 1.
        calibrated: Validation figures at the fitted temperature.
    """

    model: Cnn
    best_epoch: int
    uncalibrated: ClassifierMetrics
    calibrated: ClassifierMetrics

    def figures(self) -> dict[str, Any]:
        """Return what the metrics file holds."""
        return {
            "best_epoch": self.best_epoch,
            "num_parameters": sum(p.numel() for p in self.model.parameters()),
            "temperature": self.model.temperature.item(),
            "validation": {
                "uncalibrated": asdict(self.uncalibrated),
                "calibrated": asdict(self.calibrated),
            },
        }


def train_cnn(
    model: Cnn,
    train: ResidentSet,
    validation: ResidentSet,
    params: CnnTrainingParams,
    compute: Compute,
    on_epoch: OnEpoch,
) -> TrainedCnn:
    """Train a classifier; keep the epoch that is best on validation; fit its temperature there.

    Args:
        model: Freshly built; it is trained in place.
        train: On the device.
        validation: On the device.
        params: How.
        compute: Where.
        on_epoch: Called after every epoch.

    Raises:
        DivergedError: when the loss is not finite.
    """
    model.to(device=compute.device, memory_format=compute.memory_format)  # type: ignore[call-overload]
    num_steps = params.num_epochs * num_steps_per_epoch(len(train), params.batch_size)
    optimizer = ScheduledOptimizer(model, params, num_steps)
    best_key, best_epoch, best_state = (-1.0, 0.0), 0, copy.deepcopy(model.state_dict())

    for epoch in range(1, params.num_epochs + 1):
        train_loss = _train_epoch(model, optimizer, train, params, compute, epoch)
        figures = classifier_metrics(
            predict_logits(model, validation, compute).log_softmax(dim=1), validation.labels
        )
        require_finite(figures.nll_nats, f"train_cnn epoch {epoch}, validation")

        key = (figures.accuracy, -figures.nll_nats)
        if key > best_key:
            best_key, best_epoch, best_state = key, epoch, copy.deepcopy(model.state_dict())

        metrics = {
            "train_loss_nats": train_loss,
            "validation_nll_nats": figures.nll_nats,
            "validation_accuracy": figures.accuracy,
            "learning_rate": optimizer.learning_rate,
        }
        on_epoch(EpochReport(epoch, params.num_epochs, metrics))

    model.load_state_dict(best_state)
    return _calibrate(model.eval(), best_epoch, validation, compute)


def _train_epoch(
    model: Cnn,
    optimizer: ScheduledOptimizer,
    train: ResidentSet,
    params: CnnTrainingParams,
    compute: Compute,
    epoch: int,
) -> float:
    model.train()
    order = generator(params.seed, "order", epoch)
    noise = generator(params.seed, "augmentation", epoch, device=compute.device)
    total, num_steps = torch.zeros((), device=compute.device), 0
    for positions in epoch_batches(len(train), params.batch_size, order, compute.device):
        images = augment(to_unit_interval(train.images[positions]), params, noise)
        images = images.contiguous(memory_format=compute.memory_format)
        with compute.autocast():
            logits = model(images)
        loss = _loss(logits, train.labels[positions], params.label_smoothing)
        if compute.device.type == "cpu":  # elsewhere reading it would stall every step
            require_finite(loss.detach(), f"train_cnn epoch {epoch}")
        optimizer.step(loss)
        total += loss.detach()
        num_steps += 1
    require_finite(total, f"train_cnn epoch {epoch}")
    return total.item() / num_steps


def _loss(
    logits: Float[Tensor, "batch classes"], labels: Int64[Tensor, " batch"], smoothing: float
) -> Float[Tensor, ""]:
    return functional.cross_entropy(logits, labels, label_smoothing=smoothing)


@torch.no_grad()
def predict_logits(
    model: Cnn, images: ResidentSet, compute: Compute
) -> Float[Tensor, "num classes"]:
    """Return uncalibrated logits of a whole set, every image once, with the model in eval mode."""
    model.eval()
    logits = []
    for batch in images.images.split(_EVALUATION_BATCH_SIZE):
        pixels = to_unit_interval(batch).contiguous(memory_format=compute.memory_format)
        with compute.autocast():
            logits.append(model.predict_logits(pixels))
    return torch.cat(logits)


def _calibrate(
    model: Cnn, best_epoch: int, validation: ResidentSet, compute: Compute
) -> TrainedCnn:
    logits, labels = predict_logits(model, validation, compute), validation.labels
    model.temperature.fill_(fit_temperature(logits, labels))
    return TrainedCnn(
        model=model,
        best_epoch=best_epoch,
        uncalibrated=classifier_metrics(logits.log_softmax(dim=1), labels),
        calibrated=classifier_metrics((logits / model.temperature).log_softmax(dim=1), labels),
    )
