"""Train the autoencoder."""

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from diptych.images.batches import ResidentSet, equal_steps, num_steps_per_epoch, to_pixels
from diptych.optimization.compute import Compute
from diptych.optimization.optimizers import ScheduledOptimizer
from diptych.optimization.progress import EpochReport, OnEpoch, require_finite
from diptych.optimization.resume import Checkpoints, TrainingState
from diptych.optimization.seeding import generator
from diptych.vae.evaluate import binarized_once, evaluate_elbo
from diptych.vae.likelihood import binarize
from diptych.vae.model import Vae
from diptych.vae.params import VaeTrainingParams

_NUM_RECONSTRUCTIONS = 12


@dataclass(frozen=True, slots=True)
class TrainedVae:
    """A trained autoencoder.

    Attributes:
        model: With the weights of the best epoch, in evaluation mode.
        best_epoch: 1-based; the one of lowest validation -ELBO.
        negative_elbo_nats: Mean over the validation images, at the best epoch.
        rate_nats: Its KL term.
        distortion_nats: Its reconstruction term.
    """

    model: Vae
    best_epoch: int
    negative_elbo_nats: float
    rate_nats: float
    distortion_nats: float

    def figures(self) -> dict[str, Any]:
        """Return what the metrics file holds."""
        return {
            "best_epoch": self.best_epoch,
            "num_parameters": sum(p.numel() for p in self.model.parameters()),
            "likelihood": self.model.likelihood,
            "binarization": self.model.binarization,
            "validation": {
                "negative_elbo_nats": self.negative_elbo_nats,
                "rate_nats": self.rate_nats,
                "distortion_nats": self.distortion_nats,
            },
        }


def train_vae(
    model: Vae,
    train: ResidentSet,
    validation: ResidentSet,
    params: VaeTrainingParams,
    compute: Compute,
    on_epoch: OnEpoch,
    checkpoints: Checkpoints | None = None,
) -> TrainedVae:
    """Train an autoencoder on the evidence lower bound; keep the epoch that is best on validation.

    Args:
        model: Freshly built; it is trained in place.
        train: On the device; labels are not used.
        validation: On the device; labels are not used.
        params: How.
        compute: Where.
        on_epoch: Called after every epoch, with `reconstructions`: validation images above what
            the model makes of them; of a training that goes on, with the earlier epochs too.
        checkpoints: Where its state is kept and found again; None: nowhere.

    Raises:
        DivergedError: when the bound is not finite.
    """
    model.to(device=compute.device, memory_format=compute.memory_format)  # type: ignore[call-overload]
    num_steps = params.num_epochs * num_steps_per_epoch(len(train), params.batch_size)
    optimizer = ScheduledOptimizer(model, params, num_steps)
    validation_images = binarized_once(validation.images, params.seed)
    shown = validation_images[:_NUM_RECONSTRUCTIONS]
    state = TrainingState(model, optimizer, on_epoch, compute.device, checkpoints)
    state.restore()

    for epoch in range(len(state.history.reports) + 1, params.num_epochs + 1):
        train_loss = _train_epoch(model, optimizer, train.images, params, compute, epoch, state)
        terms = evaluate_elbo(model.eval(), validation_images, params.seed, compute)
        negative_elbo = terms.negative_elbo.mean().item()
        require_finite(negative_elbo, f"train_vae epoch {epoch}, validation")
        state.best.offer(negative_elbo, epoch)

        metrics = {
            "train_negative_elbo_nats": train_loss,
            "validation_negative_elbo_nats": negative_elbo,
            "validation_rate_nats": terms.rate.mean().item(),
            "validation_distortion_nats": terms.distortion.mean().item(),
            "learning_rate": optimizer.learning_rate,
        }
        images = {"reconstructions": _reconstructions(model, shown, compute)}
        state.history.add(EpochReport(epoch, params.num_epochs, metrics, images))

    state.best.put_back()
    figures = state.history.reports[state.best.epoch - 1].metrics
    return TrainedVae(
        model=model,
        best_epoch=state.best.epoch,
        negative_elbo_nats=figures["validation_negative_elbo_nats"],
        rate_nats=figures["validation_rate_nats"],
        distortion_nats=figures["validation_distortion_nats"],
    )


def _train_epoch(
    model: Vae,
    optimizer: ScheduledOptimizer,
    images: UInt8[Tensor, "num channels height width"],
    params: VaeTrainingParams,
    compute: Compute,
    epoch: int,
    state: TrainingState,
) -> float:
    """Train for one epoch and return its mean loss."""
    model.train()
    progress, where = state.progress, f"train_vae epoch {epoch}"
    order = torch.randperm(len(images), generator=generator(params.seed, "order", epoch))
    noise = generator(params.seed, "noise", epoch, device=compute.device)
    progress.start([order.to(compute.device)], noise)
    static = binarized_once(images, params.seed) if params.binarization == "static" else None
    steps = equal_steps(progress.order[0], params.batch_size)
    for positions in itertools.islice(steps, progress.num_steps, None):
        if static is not None:
            batch = static[positions]
        else:
            batch = binarize(images.index_select(0, positions), progress.noise)
        shape = (len(batch), model.num_latents)
        noise_of_latents = torch.randn(shape, generator=progress.noise, device=compute.device)
        with compute.autocast():
            terms = model(batch, noise_of_latents)
        loss = terms.negative_elbo.mean()
        if compute.device.type == "cpu":  # elsewhere reading it would stall every step
            require_finite(loss.detach(), where)
        optimizer.step(loss)
        progress.add(loss.detach())
        state.save_if_due(where)
    mean_loss = progress.finish()
    require_finite(mean_loss, where)
    return mean_loss.item()


@torch.no_grad()
def _reconstructions(
    model: Vae, images: Float[Tensor, "batch channels height width"], compute: Compute
) -> UInt8[Tensor, "2 batch channels height width"]:
    with compute.autocast():
        reconstructed = model.reconstruct(images)
    return torch.from_numpy(to_pixels(torch.stack([images, reconstructed])))
