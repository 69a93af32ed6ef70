"""The classifiers. Both take images of any channels and size, and give logits."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from diptych.cnn.params import CnnTrainingParams
from diptych.errors import UserError


class Cnn(nn.Module):
    """Standardises images, extracts features, classifies, and divides by a fitted temperature.

    Args:
        features: From standardised images to vectors.
        head: From vectors to logits.
        pixel_mean: One per channel, on a scale from 0 to 1.
        pixel_standard_deviation: One per channel, on the same scale.
        view_shift_pixels: Predictions also see the image shifted by so many pixels; 0 for not.
    """

    edge_parameters = ("head.weight",)

    pixel_mean: Tensor
    pixel_standard_deviation: Tensor
    temperature: Tensor

    def __init__(
        self,
        features: nn.Module,
        head: nn.Module,
        pixel_mean: Sequence[float],
        pixel_standard_deviation: Sequence[float],
        view_shift_pixels: int,
    ) -> None:
        super().__init__()
        self.view_shift_pixels = view_shift_pixels
        self.features = features
        self.head = head
        mean = torch.tensor(pixel_mean, dtype=torch.float32)
        deviation = torch.tensor(pixel_standard_deviation, dtype=torch.float32)
        self.register_buffer("pixel_mean", mean.view(1, -1, 1, 1))
        self.register_buffer(
            "pixel_standard_deviation", deviation.clamp_min(1 / 255).view(1, -1, 1, 1)
        )
        self.register_buffer("temperature", torch.ones(()))

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Return logits of single views, for images from 0 to 1: what training sees."""
        standardized = (images - self.pixel_mean) / self.pixel_standard_deviation
        logits: Tensor = self.head(self.features(standardized))
        return logits.float()

    def predict_logits(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Return logits, not yet divided by the temperature, averaged over an image's views.

        The views are the image and its shifts in the four directions, black coming in.
        """
        shift = self.view_shift_pixels
        if shift == 0:
            return self(images)
        height, width = images.shape[-2:]
        padded = functional.pad(images, (shift, shift, shift, shift))
        corners = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))  # of the views, in shifts
        views = [
            self(padded[..., y * shift : y * shift + height, x * shift : x * shift + width])
            for y, x in corners
        ]
        return torch.stack(views).mean(dim=0)

    def log_probabilities(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Return calibrated log-probabilities, in nats, for images from 0 to 1."""
        return functional.log_softmax(self.predict_logits(images) / self.temperature, dim=1)


def build_cnn(
    params: CnnTrainingParams,
    image_shape: tuple[int, int, int],
    num_classes: int,
    pixel_mean: Sequence[float],
    pixel_standard_deviation: Sequence[float],
) -> Cnn:
    """Build an untrained classifier; initial weights come from torch's global generator.

    Args:
        params: Which architecture.
        image_shape: Channels, height and width.
        num_classes: Number of logits.
        pixel_mean: One per channel, on a scale from 0 to 1.
        pixel_standard_deviation: One per channel, on the same scale.

    Raises:
        UserError: when images are too small for the architecture.
    """
    if params.architecture == "article":
        features, head = _article_layers(image_shape, num_classes)
    else:
        features, head = _compact_layers(params, image_shape, num_classes)
    return Cnn(features, head, pixel_mean, pixel_standard_deviation, params.view_shift_pixels)


def _article_layers(
    image_shape: tuple[int, int, int], num_classes: int
) -> tuple[nn.Module, nn.Module]:
    channels, height, width = image_shape
    if min(height, width) < 18:
        raise UserError(
            "train_cnn.architecture: 'article' takes images of at least 18 x 18 "
            f"(got {height} x {width})"
        )
    convolutions = nn.Sequential(
        nn.Conv2d(channels, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3),
        nn.ReLU(),
        nn.Flatten(),
    )
    num_features = 64 * _article_side(height) * _article_side(width)
    features = nn.Sequential(*convolutions, nn.Linear(num_features, 64), nn.ReLU())
    return features, nn.Linear(64, num_classes)


def _article_side(side: int) -> int:
    return ((side - 2) // 2 - 2) // 2 - 2  # unpadded convolutions take 2, poolings halve


def _compact_layers(
    params: CnnTrainingParams, image_shape: tuple[int, int, int], num_classes: int
) -> tuple[nn.Module, nn.Module]:
    channels, height, width = image_shape
    if min(height, width) < 4:
        raise UserError(
            "train_cnn.architecture: 'compact' takes images of at least 4 x 4 "
            f"(got {height} x {width})"
        )
    narrow, wide = params.width, 2 * params.width
    layers = [*_convolution(channels, narrow, 5, stride=2), nn.MaxPool2d(2)]
    for block in range(params.num_blocks):
        layers += _convolution(narrow if block == 0 else wide, wide, 3)
    return nn.Sequential(*layers, GlobalMaxPool()), nn.Linear(wide, num_classes)


def _convolution(
    num_in: int, num_out: int, kernel_size: int, stride: int = 1
) -> tuple[nn.Module, nn.Module, nn.Module]:
    convolution = nn.Conv2d(
        num_in, num_out, kernel_size, stride, padding=kernel_size // 2, bias=False
    )
    return convolution, nn.BatchNorm2d(num_out), nn.ReLU(inplace=True)


class GlobalMaxPool(nn.Module):
    """The largest activation of each channel."""

    def forward(
        self, features: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels"]:
        """Return one value per channel."""
        # max_pool2d: the gradient of amax, which is shared by ties, costs 20 % of a step on a CPU.
        return functional.max_pool2d(features, features.shape[-2:]).flatten(1)
