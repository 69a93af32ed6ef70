"""Train the classifier."""

import itertools
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from diptych.cnn.metrics import ClassifierMetrics, classifier_metrics, fit_temperature
from diptych.cnn.model import Cnn
from diptych.cnn.params import CnnTrainingParams
from diptych.cnn.selection import num_images_seen, select_images
from diptych.cnn.views import augment
from diptych.images.batches import (
    ResidentSet,
    equal_steps,
    num_steps_per_epoch,
    to_unit_interval,
)
from diptych.optimization.compute import Compute
from diptych.optimization.optimizers import ScheduledOptimizer
from diptych.optimization.progress import EpochReport, OnEpoch, require_finite
from diptych.optimization.resume import Checkpoints, TensorState, TrainingState
from diptych.optimization.seeding import generator

_EVALUATION_BATCH_SIZE = 1000


@dataclass(frozen=True, slots=True)
class TrainedCnn:
    """A trained classifier.

    Attributes:
        model: With the weights of the best epoch, calibrated, in evaluation mode.
        best_epoch: 1-based; of lowest validation NLL, calibrated, on single views.
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
    checkpoints: Checkpoints | None = None,
) -> TrainedCnn:
    """Train a classifier; keep the epoch that is best on validation; fit its temperature there.

    Args:
        model: Freshly built; it is trained in place.
        train: On the device.
        validation: On the device.
        params: How.
        compute: Where.
        on_epoch: Called after every epoch; of a training that goes on, with the earlier epochs too.
        checkpoints: Where its state is kept and found again; None: nowhere.

    Raises:
        DivergedError: when the loss is not finite.
    """
    model.to(device=compute.device, memory_format=compute.memory_format)  # type: ignore[call-overload]
    optimizer = ScheduledOptimizer(model, params, _num_steps(len(train), params))
    losses = torch.full((len(train),), math.inf, device=compute.device)  # not seen yet: hardest
    state = TrainingState(
        model, optimizer, on_epoch, compute.device, checkpoints, losses=TensorState(losses)
    )
    state.restore()

    for epoch in range(len(state.history.reports) + 1, params.num_epochs + 1):
        train_loss = _train_epoch(model, optimizer, train, losses, params, compute, epoch, state)
        logits = predict_logits(model, validation, compute, single_view=True)
        figures = classifier_metrics(logits.log_softmax(dim=1), validation.labels)
        require_finite(figures.nll_nats, f"train_cnn epoch {epoch}, validation")

        # Calibrated, as it will be used. The accuracy of so few errors is mostly chance.
        temperature = fit_temperature(logits, validation.labels)
        nll = functional.cross_entropy(logits / temperature, validation.labels).item()
        state.best.offer(nll, epoch)

        metrics = {
            "train_loss_nats": train_loss,
            "validation_nll_nats": figures.nll_nats,
            "validation_calibrated_nll_nats": nll,
            "validation_accuracy": figures.accuracy,
            "learning_rate": optimizer.learning_rate,
        }
        state.history.add(EpochReport(epoch, params.num_epochs, metrics))

    state.best.put_back()
    return _calibrate(model.eval(), state.best.epoch, validation, compute)


def _num_steps(num_images: int, params: CnnTrainingParams) -> int:
    return sum(
        num_steps_per_epoch(
            num_images_seen(num_images, epoch, params.pruned_fraction), params.batch_size
        )
        for epoch in range(1, params.num_epochs + 1)
    )


def _train_epoch(
    model: Cnn,
    optimizer: ScheduledOptimizer,
    train: ResidentSet,
    losses: Float[Tensor, " num"],
    params: CnnTrainingParams,
    compute: Compute,
    epoch: int,
    state: TrainingState,
) -> float:
    """Train for one epoch and return its mean loss; `losses` keeps each image's last."""
    model.train()
    progress, where = state.progress, f"train_cnn epoch {epoch}"
    order = generator(params.seed, "order", epoch)
    noise = generator(params.seed, "augmentation", epoch, device=compute.device)
    num = num_images_seen(len(train), epoch, params.pruned_fraction)
    progress.start(select_images(losses, num, order), noise)
    steps = zip(*(equal_steps(part, params.batch_size) for part in progress.order), strict=True)
    for positions, weights in itertools.islice(steps, progress.num_steps, None):
        pixels = to_unit_interval(train.images.index_select(0, positions))
        images = augment(pixels, params, progress.noise)
        images = images.contiguous(memory_format=compute.memory_format)
        with compute.autocast():
            logits = model(images)
        image_losses = _losses(logits, train.labels[positions], params.label_smoothing)
        losses[positions] = image_losses.detach()
        loss = (image_losses * weights).mean()
        if compute.device.type == "cpu":  # elsewhere reading it would stall every step
            require_finite(loss.detach(), where)
        optimizer.step(loss)
        progress.add(loss.detach())
        state.save_if_due(where)
    mean_loss = progress.finish()
    require_finite(mean_loss, where)
    return mean_loss.item()


def _losses(
    logits: Float[Tensor, "members batch classes"],
    labels: Int64[Tensor, " batch"],
    smoothing: float,
) -> Float[Tensor, " batch"]:
    """Return each image's cross-entropy, averaged over members: each learns as if alone."""
    members = [
        functional.cross_entropy(member, labels, label_smoothing=smoothing, reduction="none")
        for member in logits
    ]
    return torch.stack(members).mean(dim=0)


@torch.no_grad()
def predict_logits(
    model: Cnn, images: ResidentSet, compute: Compute, *, single_view: bool = False
) -> Float[Tensor, "num classes"]:
    """Return uncalibrated logits of a whole set, every image once, with the model in eval mode.

    Args:
        model: On the device.
        images: On the device.
        compute: Where.
        single_view: Leave out all views but the image itself.
    """
    model.eval()
    predict = model.single_view_logits if single_view else model.predict_logits
    logits = []
    for batch in images.images.split(_EVALUATION_BATCH_SIZE):
        pixels = to_unit_interval(batch).contiguous(memory_format=compute.memory_format)
        with compute.autocast():
            logits.append(predict(pixels))
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
