"""Images resident on the device, and the order in which a training sees them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped, UInt8
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


def equal_steps(
    positions: Shaped[Tensor, "num ..."], batch_size: int
) -> Iterator[Shaped[Tensor, "batch ..."]]:
    """Yield what each step of an epoch takes, in order.

    All steps have the same size, which stable statistics need. Fewer than `num_steps_per_epoch`
    are left over at the end.

    Args:
        positions: What the epoch goes through, in its order.
        batch_size: Wanted per step; the size is about that.
    """
    num_steps = num_steps_per_epoch(len(positions), batch_size)
    size = len(positions) // num_steps
    yield from positions[: num_steps * size].split(size)
