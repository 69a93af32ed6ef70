import pytest
import torch
from torch import nn

from diptych.vae.model import Vae


@pytest.fixture
def linear_vae(vae_params):
    """Two-by-two images, linear maps: small enough for exact answers."""

    def build(num_latents=1, seed=0):
        torch.manual_seed(seed)
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(4, 2 * num_latents))
        weights = nn.Linear(num_latents, 4)
        with torch.no_grad():
            weights.weight.mul_(4)
        decoder = nn.Sequential(weights, nn.Unflatten(1, (1, 2, 2)))
        return Vae(encoder, decoder, vae_params(num_latents=num_latents), ())

    return build


@pytest.fixture
def grey():
    """Random bytes as images."""

    def build(*shape, seed=0):
        noise = torch.Generator().manual_seed(seed)
        return torch.randint(0, 256, shape, generator=noise, dtype=torch.uint8)

    return build


@pytest.fixture
def binary(grey):
    """Random zeros and ones as images."""
    return lambda *shape, seed=0: (grey(*shape, seed=seed) >= 128).float()
