"""Where the pixels come from that likelihoods are compared on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from diptych.evaluation.autoencoder import evaluate_autoencoder
from diptych.evaluation.binarization import binarization_of
from diptych.evaluation.params import EvaluateParams
from diptych.images.batches import ResidentSet
from diptych.optimization.compute import Compute
from diptych.vae.evaluate import binarized_once

ROOT = Path(__file__).parents[2]

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Draws(TorchDispatchMode):
    """Notes on which type of device random numbers are drawn."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.devices: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        options = kwargs or {}
        if options.get("generator") is not None:
            self.devices.append(args[0].device.type)
        return func(*args, **options)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_pixels_are_drawn_on_the_cpu_wherever_the_images_lie(device):
    """Fake tensors have a device, which need not be there, and no values."""
    with FakeTensorMode(), Draws() as draws:
        images = torch.empty((5, 1, 2, 3), dtype=torch.uint8, device=device)
        binary = binarization_of(images, 0)
    assert draws.devices == ["cpu"]
    assert binary.device.type == device
    assert (binary.shape, binary.dtype) == (images.shape, torch.float32)


def test_on_the_cpu_they_are_those_of_a_training(three_pixels):
    images = three_pixels(20).images
    assert torch.equal(binarization_of(images, 3), binarized_once(images, 3))
    assert not torch.equal(binarization_of(images, 3), binarization_of(images, 4))


def test_no_evaluation_draws_pixels_otherwise():
    folders = (ROOT / "src/diptych/evaluation", ROOT / "stages")
    files = [file for folder in folders for file in folder.glob("*.py")]
    assert [file.name for file in files if "binarize" in file.read_text()] == ["binarization.py"]


@needs_cuda
def test_a_gpu_evaluates_the_very_pixels_that_the_cpu_does(tiny_vae, three_pixels, cpu):
    params = EvaluateParams(
        num_importance_samples=2, num_mistakes=1, num_reconstructions=503, seed=0
    )
    images, gpu = three_pixels(503), Compute(torch.device("cuda"), torch.float32)
    there = ResidentSet(images.images.cuda(), images.labels.cuda())
    here = evaluate_autoencoder(tiny_vae((1, 1, 3)), images, params, cpu)
    elsewhere = evaluate_autoencoder(tiny_vae((1, 1, 3)).cuda(), there, params, gpu)
    assert (here.shown.inputs == elsewhere.shown.inputs).all()
