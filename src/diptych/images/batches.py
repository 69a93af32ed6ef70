"""Images resident on the device, and the order in which a training sees them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from diptych.images.arrays import ImageSet


@dataclass(frozen=True, slots=True)
class ResidentSet:
    """A set of images with labels in a device's memory.

    Attributes:
        images: Pixels from 0 to 255.
        labels: Class of each image.
    """

    images: UInt8[Tensor, "num channels height width"]
    labels: Int64[Tensor, " num"]

    def __len__(self) -> int:
        return len(self.images)


def to_device(image_set: ImageSet, device: torch.device) -> ResidentSet:
    """Copy a set of images to a device."""
    images = torch.from_numpy(np.array(image_set.images))
    labels = torch.from_numpy(np.array(image_set.labels))
    return ResidentSet(images.to(device), labels.to(device))


def to_unit_interval(
    images: UInt8[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels height width"]:
    """Return pixels as float32 from 0 to 1."""
    return images.to(torch.float32) / 255


def to_pixels(
    images: Float[Tensor, "*batch channels height width"],
) -> UInt8[np.ndarray, "*batch channels height width"]:
    """Return values from 0 to 1 as bytes from 0 to 255, rounded, in the CPU's memory."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def num_steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Return into how many equal steps an epoch is cut, so that a step has about `batch_size`."""
    return max(1, round(num_images / batch_size))


def epoch_batches(
    num_images: int, batch_size: int, generator: torch.Generator, device: torch.device
) -> Iterator[Int64[Tensor, " batch"]]:
    """Yield the positions of each step's images, in random order.

    All steps have the same size, which captured graphs and stable statistics need; the fewer than
    `num_steps_per_epoch` images left over differ from epoch to epoch.

    Args:
        num_images: Of the set.
        batch_size: Images wanted per step.
        generator: On the CPU, so that the order is the same on every device.
        device: Where the positions are needed.
    """
    num_steps = num_steps_per_epoch(num_images, batch_size)
    size = num_images // num_steps
    order = torch.randperm(num_images, generator=generator).to(device)
    yield from order[: num_steps * size].split(size)
