"""The classifiers. All take images of any channels and size, and give logits."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from diptych.cnn.params import CnnTrainingParams
from diptych.cnn.views import View, prediction_views
from diptych.errors import UserError


class Cnn(nn.Module):
    """Standardises images, classifies them, and divides by a fitted temperature.

    Args:
        members: Networks from standardised images to logits, each [features, head]; their logits
            are averaged.
        pixel_mean: One per channel, on a scale from 0 to 1.
        pixel_standard_deviation: One per channel, on the same scale.
        views: What predictions average over, beside the image itself.
    """

    pixel_mean: Tensor
    pixel_standard_deviation: Tensor
    temperature: Tensor

    def __init__(
        self,
        members: Sequence[nn.Sequential],
        pixel_mean: Sequence[float],
        pixel_standard_deviation: Sequence[float],
        views: Sequence[View] = (),
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.views = tuple(views)
        self.edge_parameters = tuple(f"members.{i}.1.weight" for i in range(len(members)))
        mean = torch.tensor(pixel_mean, dtype=torch.float32)
        deviation = torch.tensor(pixel_standard_deviation, dtype=torch.float32)
        self.register_buffer("pixel_mean", mean.view(1, -1, 1, 1))
        self.register_buffer(
            "pixel_standard_deviation", deviation.clamp_min(1 / 255).view(1, -1, 1, 1)
        )
        self.register_buffer("temperature", torch.ones(()))

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "members batch classes"]:
        """Return each member's logits, for images from 0 to 1: what training sees."""
        standardized = (images - self.pixel_mean) / self.pixel_standard_deviation
        return torch.stack([member(standardized) for member in self.members]).float()

    def single_view_logits(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Return logits averaged over members, of the images as they are."""
        return self(images).mean(dim=0)

    def predict_logits(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Return logits, not yet divided by the temperature, averaged over members and views."""
        seen = [images, *(view.of(images) for view in self.views)]
        return torch.stack([self.single_view_logits(view) for view in seen]).mean(dim=0)

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
    members = [_build_member(params, image_shape, num_classes) for _ in range(params.num_members)]
    return Cnn(members, pixel_mean, pixel_standard_deviation, tuple(prediction_views(params)))


def _build_member(
    params: CnnTrainingParams, image_shape: tuple[int, int, int], num_classes: int
) -> nn.Sequential:
    if params.architecture == "article":
        return nn.Sequential(*_article_layers(image_shape, num_classes))
    if min(image_shape[1:]) < 4:
        raise UserError(
            f"train_cnn.architecture: {params.architecture!r} takes images of at least 4 x 4 "
            f"(got {image_shape[1]} x {image_shape[2]})"
        )
    layers = _deep_layers if params.architecture == "deep" else _compact_layers
    features, num_features = layers(params, image_shape[0])
    head = nn.Linear(num_features, num_classes)
    return nn.Sequential(nn.Sequential(*features, GlobalMaxPool()), head)


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


def _compact_layers(params: CnnTrainingParams, num_channels: int) -> tuple[list[nn.Module], int]:
    narrow, wide = params.width, 2 * params.width
    first = min(narrow, max(16, narrow // 2))  # fewer than 16 fill no vector of a CPU
    layers = [
        *_convolution(num_channels, first, 5, stride=2),
        *_convolution(first, narrow, 3, pooled=True),
        *_convolutions(narrow, wide, params.num_blocks),
    ]
    return layers, wide


def _deep_layers(params: CnnTrainingParams, num_channels: int) -> tuple[list[nn.Module], int]:
    narrow, wide, widest = params.width, 2 * params.width, 4 * params.width
    layers = [
        *_convolutions(num_channels, narrow, params.num_blocks, pooled=True),
        *_convolutions(narrow, wide, params.num_blocks, pooled=True),
        *_convolutions(wide, widest, params.num_blocks),
    ]
    return layers, widest


def _convolutions(
    num_in: int, num_out: int, num_blocks: int, *, pooled: bool = False
) -> list[nn.Module]:
    layers = []
    for block in range(num_blocks):
        is_last = block == num_blocks - 1
        layers += _convolution(num_in, num_out, 3, pooled=pooled and is_last)
        num_in = num_out
    return layers


def _convolution(
    num_in: int, num_out: int, kernel_size: int, stride: int = 1, *, pooled: bool = False
) -> list[nn.Module]:
    convolution = nn.Conv2d(
        num_in, num_out, kernel_size, stride, padding=kernel_size // 2, bias=False
    )
    # Pooled first: normalisation and activation then work on a quarter of the values.
    pool = [nn.MaxPool2d(2)] if pooled else []
    return [convolution, *pool, nn.BatchNorm2d(num_out), nn.ReLU(inplace=True)]


class GlobalMaxPool(nn.Module):
    """The largest activation of each channel."""

    def forward(
        self, features: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels"]:
        """Return one value per channel."""
        # max_pool2d: the gradient of amax, which is shared by ties, takes far longer on a CPU.
        return functional.max_pool2d(features, features.shape[-2:]).flatten(1)
