"""Train the autoencoder."""

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from diptych.images.batches import ResidentSet, epoch_batches, num_steps_per_epoch, to_pixels
from diptych.optimization.compute import Compute
from diptych.optimization.optimizers import ScheduledOptimizer
from diptych.optimization.progress import EpochReport, OnEpoch, require_finite
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
) -> TrainedVae:
    """Train an autoencoder on the evidence lower bound; keep the epoch that is best on validation.

    Args:
        model: Freshly built; it is trained in place.
        train: On the device; labels are not used.
        validation: On the device; labels are not used.
        params: How.
        compute: Where.
        on_epoch: Called after every epoch, with `reconstructions`: validation images above what
            the model makes of them.

    Raises:
        DivergedError: when the bound is not finite.
    """
    model.to(device=compute.device, memory_format=compute.memory_format)  # type: ignore[call-overload]
    num_steps = params.num_epochs * num_steps_per_epoch(len(train), params.batch_size)
    optimizer = ScheduledOptimizer(model, params, num_steps)
    validation_images = binarized_once(validation.images, params.seed)
    shown = validation_images[:_NUM_RECONSTRUCTIONS]
    best = TrainedVae(model, 0, math.inf, math.inf, math.inf)
    best_state = copy.deepcopy(model.state_dict())

    for epoch in range(1, params.num_epochs + 1):
        train_loss = _train_epoch(model, optimizer, train.images, params, compute, epoch)
        terms = evaluate_elbo(model.eval(), validation_images, params.seed, compute)
        result = TrainedVae(
            model=model,
            best_epoch=epoch,
            negative_elbo_nats=terms.negative_elbo.mean().item(),
            rate_nats=terms.rate.mean().item(),
            distortion_nats=terms.distortion.mean().item(),
        )
        require_finite(result.negative_elbo_nats, f"train_vae epoch {epoch}, validation")

        if result.negative_elbo_nats < best.negative_elbo_nats:
            best, best_state = result, copy.deepcopy(model.state_dict())

        metrics = {
            "train_negative_elbo_nats": train_loss,
            "validation_negative_elbo_nats": result.negative_elbo_nats,
            "validation_rate_nats": result.rate_nats,
            "validation_distortion_nats": result.distortion_nats,
            "learning_rate": optimizer.learning_rate,
        }
        images = {"reconstructions": _reconstructions(model, shown, compute)}
        on_epoch(EpochReport(epoch, params.num_epochs, metrics, images))

    model.load_state_dict(best_state)
    return best


def _train_epoch(
    model: Vae,
    optimizer: ScheduledOptimizer,
    images: UInt8[Tensor, "num channels height width"],
    params: VaeTrainingParams,
    compute: Compute,
    epoch: int,
) -> float:
    model.train()
    order = generator(params.seed, "order", epoch)
    noise_source = generator(params.seed, "noise", epoch, device=compute.device)
    total, num_steps = torch.zeros((), device=compute.device), 0
    if params.binarization == "static":
        static = binarized_once(images, params.seed)
    for positions in epoch_batches(len(images), params.batch_size, order, compute.device):
        if params.binarization == "static":
            batch = static[positions]
        else:
            batch = binarize(images[positions], noise_source)
        shape = (len(batch), model.num_latents)
        noise = torch.randn(shape, generator=noise_source, device=compute.device)
        with compute.autocast():
            terms = model(batch, noise)
        loss = terms.negative_elbo.mean()
        if compute.device.type == "cpu":  # elsewhere reading it would stall every step
            require_finite(loss.detach(), f"train_vae epoch {epoch}")
        optimizer.step(loss)
        total += loss.detach()
        num_steps += 1
    require_finite(total, f"train_vae epoch {epoch}")
    return total.item() / num_steps


@torch.no_grad()
def _reconstructions(
    model: Vae, images: Float[Tensor, "batch channels height width"], compute: Compute
) -> UInt8[Tensor, "2 batch channels height width"]:
    with compute.autocast():
        reconstructed = model.reconstruct(images)
    return torch.from_numpy(to_pixels(torch.stack([images, reconstructed])))
