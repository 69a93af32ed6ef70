"""How near a training comes to what the machine's matrix products reach."""

from collections.abc import Callable
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.settings import Setting
from benchmarks.trainings import (
    LoadedData,
    ignore_epoch,
    import_all_of_torch,
    load_data,
    new_cnn,
    new_vae,
    timed,
)
from diptych.cnn.train import predict_logits, train_cnn
from diptych.images.batches import ResidentSet
from diptych.optimization.compute import Compute, set_up_compute
from diptych.vae.evaluate import binarized_once, evaluate_elbo
from diptych.vae.train import train_vae

_NUM_FORWARD_IMAGES = 50
_FIRST_NUM_STEPS = 4
_LAST_NUM_STEPS = 2048
_MIN_SECONDS = 1.0
_SIDES = {"cpu": 1024, "cuda": 8192, "mps": 4096}
_NUM_PRODUCTS = 10

Train = Callable[[int, Compute], None]
"""Trains a fresh model for one epoch of so many steps."""


def measure_cnn(setting: Setting) -> dict[str, float]:
    """Count and time a classifier's training steps."""
    compute, data = _prepare(setting)
    params = setting.cnn().model_copy(update={"num_epochs": 1})

    def train(num_steps: int, where: Compute) -> None:
        images = _first(data.train, num_steps * params.batch_size, where)
        validation = _first(data.validation, 1, where)
        model = new_cnn(params, data.description)
        train_cnn(model, images, validation, params, where, ignore_epoch)

    def predict(where: Compute) -> None:
        model = new_cnn(params, data.description)
        images = _first(data.test, _NUM_FORWARD_IMAGES, where)
        predict_logits(model, images, where, single_view=True)

    return _figures(train, predict, params.batch_size, compute)


def measure_vae(setting: Setting) -> dict[str, float]:
    """Count and time an autoencoder's training steps."""
    compute, data = _prepare(setting)
    params = setting.vae().model_copy(update={"num_epochs": 1})

    def train(num_steps: int, where: Compute) -> None:
        images = _first(data.train, num_steps * params.batch_size, where)
        validation = _first(data.validation, 1, where)
        model = new_vae(params, data.description)
        train_vae(model, images, validation, params, where, ignore_epoch)

    def bound(where: Compute) -> None:
        model = new_vae(params, data.description).eval()
        images = _first(data.test, _NUM_FORWARD_IMAGES, where).images
        evaluate_elbo(model, binarized_once(images, 0), 0, where)

    return _figures(train, bound, params.batch_size, compute)


def matrix_product_flops_per_second(compute: Compute) -> float:
    """Return the floating-point operations per second of the best of several matrix products."""
    side = _SIDES[compute.device.type]
    matrix = torch.randn(side, side, device=compute.device).to(compute.dtype)
    seconds = [timed(lambda: matrix @ matrix, compute)[1] for _ in range(_NUM_PRODUCTS)]
    return 2 * side**3 / min(seconds)


def _prepare(setting: Setting) -> tuple[Compute, LoadedData]:
    compute = set_up_compute(setting.compute())
    import_all_of_torch()
    return compute, load_data(setting.processed, compute)


def _figures(
    train: Train, forward: Callable[[Compute], None], batch_size: int, compute: Compute
) -> dict[str, float]:
    # Operations are counted on the CPU, where they pass one by one.
    cpu = Compute(torch.device("cpu"), torch.float32)
    step_flops = _flops(lambda: train(2, cpu)) - _flops(lambda: train(1, cpu))
    forward_flops = _flops(lambda: forward(cpu))
    steps_per_second = _steps_per_second(lambda num_steps: train(num_steps, compute), compute)
    achieved = steps_per_second * step_flops
    peak = matrix_product_flops_per_second(compute)
    return {
        "forward_flops_per_image": forward_flops / _NUM_FORWARD_IMAGES,
        "training_flops_per_image": step_flops / batch_size,
        "training_images_per_second": steps_per_second * batch_size,
        "training_flops_per_second": achieved,
        "matrix_product_flops_per_second": peak,
        "share_of_matrix_product": achieved / peak,
    }


def _flops(work: Callable[[], None]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def _steps_per_second(train: Callable[[int], None], compute: Compute) -> float:
    """Return the steady speed: what start-up and the end of a training take cancels out."""
    train(1)
    num_steps, shorter = _FIRST_NUM_STEPS, timed(lambda: train(_FIRST_NUM_STEPS), compute)[1]
    while True:
        longer = timed(partial(train, 2 * num_steps), compute)[1]
        if longer - shorter >= _MIN_SECONDS or (longer > shorter and num_steps >= _LAST_NUM_STEPS):
            return num_steps / (longer - shorter)
        num_steps, shorter = 2 * num_steps, longer


def _first(images: ResidentSet, num_images: int, where: Compute) -> ResidentSet:
    """Return so many images, over and over again if there are fewer."""
    positions = torch.arange(num_images, device=images.labels.device) % len(images)
    device = where.device
    return ResidentSet(images.images[positions].to(device), images.labels[positions].to(device))
