"""How long a model takes for one image, and how many it takes in a second."""

import http.client
import json
import statistics
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from benchmarks.settings import Setting, UnavailableError
from benchmarks.trainings import LoadedData, load_data, new_cnn, new_vae, timed
from diptych.images.batches import to_unit_interval
from diptych.novelty import fit_novelty
from diptych.optimization.compute import Compute, set_up_compute
from diptych.pair.params import PairParams
from diptych.params import check_section

_NUM_WARMUPS = 5
_NUM_CALLS = 50
_NUM_WORKERS = 1  # of the server, as `diptych serve` has it


@torch.no_grad()
def measure_latency(setting: Setting) -> dict[str, float]:
    """Time an untrained classifier, in plain torch, from bytes to calibrated probabilities."""
    compute = set_up_compute(setting.compute())
    data = load_data(setting.processed, compute)
    model = new_cnn(setting.cnn(), data.description).eval()
    model.to(device=compute.device, memory_format=compute.memory_format)  # type: ignore[call-overload]

    def median_seconds(batch_size: int) -> float:
        images = data.test.images[torch.arange(batch_size) % len(data.test)]

        def predict() -> None:
            pixels = to_unit_interval(images).contiguous(memory_format=compute.memory_format)
            with compute.autocast():
                model.log_probabilities(pixels).cpu()

        return _median_seconds(predict, compute)

    return {
        "batch_1_seconds": median_seconds(1),
        "batch_256_images_per_second": 256 / median_seconds(256),
    }


def _median_seconds(work: Callable[[], object], compute: Compute) -> float:
    for _ in range(_NUM_WARMUPS):
        work()
    return statistics.median(timed(work, compute)[1] for _ in range(_NUM_CALLS))


def measure_pair_latency(setting: Setting) -> dict[str, float]:
    """Time an untrained pair, from bytes to answers: in this process, and behind a real server.

    Over HTTP one client waits for each answer before it asks again.

    Raises:
        UnavailableError: when the part of the library that serves is not here.
    """
    if find_spec("diptych.tracking") is None:
        raise UnavailableError("needs diptych.tracking, which no bundle holds")
    from diptych.models import load_pair
    from diptych.tracking.packing import pack_model
    from diptych.tracking.serving import free_port, model_server

    cpu = Compute(torch.device("cpu"), torch.float32)
    set_up_compute(setting.compute())  # the number of threads
    data = load_data(setting.processed, cpu)
    few, many = (_first(data, num_images) for num_images in (1, 256))
    with TemporaryDirectory(prefix="diptych-latency-") as temporary:
        folder = Path(temporary)
        model = load_pair(_save_untrained_pair(folder, setting, data))
        here = [_median_seconds(partial(model.answer, images), cpu) for images in (few, many)]
        packed, port = folder / "packed", free_port()
        pack_model(packed, folder / "pair", data.description.image_shape, {})
        with (
            (folder / "log").open("wb") as log,
            model_server(packed, port, _NUM_WORKERS, log),
        ):
            served = [_seconds_over_http(port, images, cpu) for images in (few, many)]
    return {
        "batch_1_seconds": here[0],
        "batch_256_images_per_second": 256 / here[1],
        "http_batch_1_seconds": served[0],
        "http_batch_256_images_per_second": 256 / served[1],
    }


def _first(data: LoadedData, num_images: int) -> UInt8[np.ndarray, "num c h w"]:
    """Return so many test images, over and over again if there are fewer."""
    return data.test.images[torch.arange(num_images) % len(data.test)].numpy()


def _save_untrained_pair(folder: Path, setting: Setting, data: LoadedData) -> Path:
    from diptych.checkpoints import save_model
    from diptych.models import save_pair

    described = data.description
    vae = new_vae(setting.vae(), described).eval()
    novelty = fit_novelty(vae, data.validation.images, setting.seed)
    members: dict[str, tuple[dict[str, torch.Tensor], Any]] = {
        "cnn": (new_cnn(setting.cnn(), described).state_dict(), setting.cnn()),
        "vae": ({**vae.state_dict(), **novelty.state()}, setting.vae()),
    }
    for family, (state, params) in members.items():
        description = {
            "family": family,
            "params": params.model_dump(mode="json"),
            "image_shape": list(described.image_shape),
            "class_names": list(described.class_names),
            "pixel_mean": list(described.pixel_mean),
            "pixel_standard_deviation": list(described.pixel_standard_deviation),
            "fingerprints": {
                "dataset": described.name,
                "dataset_sha256": described.digest,
                "params_sha256": "",
            },
        }
        save_model(folder / family, state, description)
    level = check_section("params", setting.content, "pair", PairParams)
    save_pair(folder / "pair", folder / "cnn", folder / "vae", level)
    return folder / "pair"


def _seconds_over_http(port: int, images: UInt8[np.ndarray, "num c h w"], cpu: Compute) -> float:
    body = json.dumps({"inputs": images.tolist()})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask() -> None:
        connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise RuntimeError(f"the server must answer with 200 (got {answer[:200]!r})")

    try:
        return _median_seconds(ask, cpu)
    finally:
        connection.close()
