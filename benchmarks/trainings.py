"""One training and one look at the test set, timed."""

import importlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from benchmarks.settings import Setting
from diptych.cnn.metrics import classifier_metrics
from diptych.cnn.model import Cnn, build_cnn
from diptych.cnn.params import CnnTrainingParams
from diptych.cnn.train import predict_logits, train_cnn
from diptych.images.arrays import DatasetDescription, load_description, load_image_set
from diptych.images.batches import ResidentSet, to_device
from diptych.optimization.compute import Compute, set_up_compute
from diptych.optimization.progress import EpochReport
from diptych.vae.elbo import active_units
from diptych.vae.evaluate import (
    binarized_once,
    evaluate_elbo,
    evaluate_log_likelihood,
    posterior_means,
)
from diptych.vae.model import Vae, build_vae
from diptych.vae.params import VaeTrainingParams
from diptych.vae.train import train_vae

_NUM_IMAGES_TAKEN_TWICE = 1000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LoadedData:
    """All splits on the device.

    Attributes:
        description: What dataset.json says.
        train: Training images.
        validation: Validation images.
        test: Test images.
        seconds: It took to verify, read and copy them; a GPU's start-up is part of it.
    """

    description: DatasetDescription
    train: ResidentSet
    validation: ResidentSet
    test: ResidentSet
    seconds: float


def load_data(folder: Path, compute: Compute) -> LoadedData:
    """Read a processed data set onto the device.

    Raises:
        DataError: when the folder does not hold what its description says.
    """
    description = load_description(folder)
    (train, validation, test), seconds = timed(
        lambda: [
            to_device(load_image_set(folder, split, description), compute.device)
            for split in ("train", "validation", "test")
        ],
        compute,
    )
    return LoadedData(description, train, validation, test, seconds)


def measure_cnn(setting: Setting) -> dict[str, float]:
    """Train a classifier; evaluate it once on the test set."""
    compute = set_up_compute(setting.compute())
    import_all_of_torch()
    data = load_data(setting.processed, compute)
    params = setting.cnn()
    untrained = new_cnn(params, data.description)
    trained, training_seconds = timed(
        lambda: train_cnn(untrained, data.train, data.validation, params, compute, ignore_epoch),
        compute,
    )
    logits, prediction_seconds = timed(
        lambda: predict_logits(trained.model, data.test, compute), compute
    )
    labels, temperature = data.test.labels, trained.model.temperature
    uncalibrated = classifier_metrics(logits.log_softmax(dim=1), labels)
    calibrated = classifier_metrics((logits / temperature).log_softmax(dim=1), labels)
    return {
        "accuracy": calibrated.accuracy,
        "nll_nats": calibrated.nll_nats,
        "ece": calibrated.ece,
        "uncalibrated_nll_nats": uncalibrated.nll_nats,
        "uncalibrated_ece": uncalibrated.ece,
        "temperature": temperature.item(),
        "num_parameters": num_parameters(trained.model),
        "best_epoch": trained.best_epoch,
        "training_seconds": training_seconds,
        "loading_seconds": data.seconds,
        "prediction_seconds": prediction_seconds,
    }


def measure_vae(setting: Setting) -> dict[str, float]:
    """Train an autoencoder; evaluate it once on the test set, binarised once per seed."""
    compute = set_up_compute(setting.compute())
    import_all_of_torch()
    data = load_data(setting.processed, compute)
    params = setting.vae()
    untrained = new_vae(params, data.description)
    trained, training_seconds = timed(
        lambda: train_vae(untrained, data.train, data.validation, params, compute, ignore_epoch),
        compute,
    )
    model, seed, num_samples = trained.model, setting.seed, setting.num_importance_samples
    images = binarized_once(data.test.images, seed)
    terms = evaluate_elbo(model, images, seed, compute)
    log_likelihood, likelihood_seconds = timed(
        lambda: evaluate_log_likelihood(model, images, num_samples, seed, compute), compute
    )
    nll = -log_likelihood.cpu().double()
    return {
        "negative_elbo_nats": _mean(terms.negative_elbo),
        "rate_nats": _mean(terms.rate),
        "distortion_nats": _mean(terms.distortion),
        "nll_nats": _mean(nll),
        "nll_standard_error_nats": nll.std().item() / math.sqrt(len(nll)),
        "nll_monte_carlo_error_nats": _monte_carlo_error(model, images, nll, setting, compute),
        "num_importance_samples": num_samples,
        "bits_per_dim": _mean(nll) / (images[0].numel() * math.log(2)),
        "active_units": active_units(posterior_means(model, images, compute)),
        "num_parameters": num_parameters(model),
        "best_epoch": trained.best_epoch,
        "training_seconds": training_seconds,
        "loading_seconds": data.seconds,
        "likelihood_seconds": likelihood_seconds,
    }


def new_cnn(params: CnnTrainingParams, description: DatasetDescription) -> Cnn:
    """Return an untrained classifier whose weights are a function of the seed."""
    torch.manual_seed(params.seed)
    return build_cnn(
        params,
        description.image_shape,
        len(description.class_names),
        description.pixel_mean,
        description.pixel_standard_deviation,
    )


def new_vae(params: VaeTrainingParams, description: DatasetDescription) -> Vae:
    """Return an untrained autoencoder whose weights are a function of the seed."""
    torch.manual_seed(params.seed)
    return build_vae(params, description.image_shape)


def timed(work: Callable[[], T], compute: Compute) -> tuple[T, float]:
    """Return what work returns and the seconds until the device has done it."""
    wait_for(compute)
    start = time.perf_counter()
    result = work()
    wait_for(compute)
    return result, time.perf_counter() - start


def wait_for(compute: Compute) -> None:
    """Return when the device has done all that it was told."""
    if compute.device.type == "cuda":
        torch.cuda.synchronize()
    elif compute.device.type == "mps":
        torch.mps.synchronize()


def import_all_of_torch() -> None:
    """Import what torch's first optimiser would: imports are not part of a training's seconds."""
    importlib.import_module("torch._dynamo")


def ignore_epoch(report: EpochReport) -> None:
    """Take an epoch's report and do nothing with it."""
    del report


def num_parameters(model: nn.Module) -> int:
    """Return the number of weights that training changes."""
    return sum(parameter.numel() for parameter in model.parameters())


def _mean(values: Float[Tensor, " num"]) -> float:
    return values.cpu().double().mean().item()


def _monte_carlo_error(
    model: Vae,
    images: Float[Tensor, "num channels height width"],
    nll: Float[Tensor, " num"],
    setting: Setting,
    compute: Compute,
) -> float:
    """Return the standard error of the mean NLL that the importance samples alone cause, in nats.

    The first images are taken again with other samples: the variance of one estimate is half the
    mean square of the difference of two.
    """
    some = images[:_NUM_IMAGES_TAKEN_TWICE]
    other_seed = setting.seed + 2**32
    again = -evaluate_log_likelihood(
        model, some, setting.num_importance_samples, other_seed, compute
    )
    differences = nll[: len(some)] - again.cpu().double()
    return (differences.square().mean().item() / 2 / len(nll)) ** 0.5
