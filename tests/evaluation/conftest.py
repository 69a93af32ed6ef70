import pytest
import torch
from torch import nn

from diptych.cnn.model import Cnn
from diptych.images.batches import ResidentSet
from diptych.vae.model import Vae


@pytest.fixture
def brightest():
    """A classifier that needs no training: the class is the brightest of three pixels."""
    head = nn.Linear(3, 3)
    with torch.no_grad():
        head.weight.copy_(8 * torch.eye(3))
        head.bias.zero_()
    return Cnn([nn.Sequential(nn.Flatten(), head)], [0.0], [1.0]).eval()


@pytest.fixture
def three_pixels():
    """Images of one row of three pixels; the label is the brightest, except in every tenth."""

    def build(num_images):
        noise = torch.Generator().manual_seed(0)
        shape = (num_images, 1, 1, 3)
        images = torch.randint(0, 256, shape, generator=noise, dtype=torch.uint8)
        labels = images.flatten(1).argmax(dim=1)
        labels[::10] = (labels[::10] + 1) % 3
        return ResidentSet(images, labels)

    return build


@pytest.fixture
def tiny_vae(vae_params):
    """An untrained autoencoder of images of any shape."""

    def build(image_shape, num_latents=2):
        torch.manual_seed(0)
        num_pixels = image_shape[0] * image_shape[1] * image_shape[2]
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(num_pixels, 2 * num_latents))
        weights = nn.Linear(num_latents, num_pixels)
        with torch.no_grad():
            weights.weight.mul_(3)
        decoder = nn.Sequential(weights, nn.Unflatten(1, image_shape))
        return Vae(encoder, decoder, vae_params(num_latents=num_latents), ()).eval()

    return build
