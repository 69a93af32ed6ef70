"""The autoregressive part of p(x|z): a pixel that sees the pixels drawn before it."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Probabilities = Float[Tensor, "batch channels"]


class Neighbourhood(nn.Module):
    """p(x|z) as a product over pixels in raster order, each given z and its causal neighbourhood.

    That is the pixels at most `radius` rows above and `radius` columns aside, and those to the left
    in its own row. The neighbourhood is small, so that what spans an image is left to z. The
    channels of one pixel are independent given all this.

    Source: van den Oord et al. (2016), "Pixel recurrent neural networks", for masked convolutions;
    Chen et al. (2017), "Variational lossy autoencoder", for a small field beside latents.

    Args:
        num_channels: Of the images.
        num_features: Of the decoder's maps.
        radius: In pixels, >= 1.
    """

    mask: Tensor

    def __init__(self, num_channels: int, num_features: int, radius: int) -> None:
        super().__init__()
        self.radius = radius
        side = 2 * radius + 1
        self.kernel = nn.Conv2d(num_channels, num_features, (radius + 1, side), bias=False)
        self.head = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(num_features, num_features, 1),
            nn.ReLU(),
            nn.Conv2d(num_features, num_channels, 1),
        )
        mask = torch.ones(radius + 1, side)
        mask[-1, radius:] = 0  # the pixel itself and what comes after it
        self.register_buffer("mask", mask, persistent=False)

    def forward(
        self,
        maps: Float[Tensor, "samples batch features height width"],
        images: Float[Tensor, "batch channels height width"],
    ) -> Float[Tensor, "samples batch channels height width"]:
        """Return the logit of each pixel, given the decoder's maps and the image's earlier pixels.

        What the images say is computed once, whatever the number of samples.
        """
        radius = self.radius
        padded = functional.pad(2 * images - 1, (radius, radius, radius, 0))
        context = functional.conv2d(padded, self._masked_kernel())[None]
        logits: Tensor = self.head((maps + context).flatten(0, 1))
        return logits.unflatten(0, maps.shape[:2])

    def draw(
        self,
        maps: Float[Tensor, "batch features height width"],
        choose: Callable[[Probabilities, int, int], Probabilities],
    ) -> Float[Tensor, "batch channels height width"]:
        """Fill images pixel by pixel.

        Args:
            maps: The decoder's.
            choose: From p(pixel = 1), row and column to the pixel's value, which later pixels see.
        """
        radius = self.radius
        batch, _, height, width = maps.shape
        kernel = self._masked_kernel()
        weights = kernel.flatten(1).T
        shape = (batch, kernel.shape[1], height + radius, width + 2 * radius)
        centred = maps.new_zeros(shape)  # from -1 to 1; 0 outside the image and where not yet drawn
        for row in range(height):
            for column in range(width):
                above = slice(row, row + radius + 1)
                patch = centred[:, :, above, column : column + 2 * radius + 1]
                features = maps[:, :, row, column] + patch.flatten(1) @ weights
                logits: Tensor = self.head(features[..., None, None]).flatten(1)
                value = choose(logits.float().sigmoid(), row, column)
                centred[:, :, row + radius, column + radius] = 2 * value - 1
        return (centred[:, :, radius:, radius : radius + width] + 1) / 2

    def _masked_kernel(self) -> Tensor:
        return self.kernel.weight * self.mask
