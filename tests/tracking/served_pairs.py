"""Small pairs of models, and real images for them: handwritten digits of 8 x 8 pixels."""

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from diptych.checkpoints import save_model
from diptych.cnn.model import build_cnn
from diptych.cnn.params import CnnTrainingParams
from diptych.models import save_pair
from diptych.novelty import fit_novelty
from diptych.pair.params import PairParams
from diptych.vae.model import build_vae
from diptych.vae.params import VaeTrainingParams
from tests.conftest import CNN, VAE

SHAPE = (1, 8, 8)
NAMES = tuple(f"digit {label}" for label in range(10))


def digits(num_images: int) -> np.ndarray:
    """Real images, [num, 1, 8, 8], uint8."""
    pixels = load_digits().images[:num_images]
    return np.round(pixels * (255 / 16)).astype(np.uint8)[:, None]


def save_small_pair(folder: Path, seed: int = 0) -> Path:
    """Write untrained models that know what digits look like; return the pair's folder."""
    torch.manual_seed(seed)
    cnn_params = CnnTrainingParams.model_validate({**CNN, "view_shift_pixels": 1.0})
    vae_params = VaeTrainingParams.model_validate(VAE)
    cnn = build_cnn(cnn_params, SHAPE, len(NAMES), [0.3], [0.4]).eval()
    vae = build_vae(vae_params, SHAPE).eval()
    images = torch.from_numpy(digits(400))
    with torch.no_grad():
        logits = cnn.predict_logits(images / 255)
        cnn.get_parameter("members.0.1.bias").sub_(
            logits.mean(dim=0)
        )  # now no class is every image's
        cnn.temperature.fill_(logits.std(dim=0).mean())
    prints = {"dataset": "digits", "dataset_sha256": "0" * 64, "params_sha256": "1" * 64}
    described = {"image_shape": list(SHAPE), "class_names": list(NAMES), "fingerprints": prints}
    pixels = {"pixel_mean": [0.3], "pixel_standard_deviation": [0.4]}
    save_model(
        folder / "cnn",
        cnn.state_dict(),
        {"family": "cnn", "params": cnn_params.model_dump(mode="json"), **described, **pixels},
    )
    save_model(
        folder / "vae",
        {**vae.state_dict(), **fit_novelty(vae, images[200:], seed).state()},
        {"family": "vae", "params": vae_params.model_dump(mode="json"), **described},
    )
    level = PairParams(abstention_level=0.02)
    save_pair(folder / "pair", folder / "cnn", folder / "vae", level)
    return folder / "pair"
