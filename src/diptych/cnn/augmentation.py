"""Random affine changes of whole batches, on the device."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from diptych.cnn.params import CnnTrainingParams


def augment(
    images: Float[Tensor, "batch channels height width"],
    params: CnnTrainingParams,
    generator: torch.Generator,
) -> Float[Tensor, "batch channels height width"]:
    """Rotate, scale and shift each image by random amounts; black comes in at the borders.

    Args:
        images: Pixels from 0 (black) to 1.
        params: The largest changes; with all of them 0 the images are returned as they are.
        generator: On the images' device.

    Returns:
        The changed images, resampled bilinearly.
    """
    if params.max_shift_pixels == params.max_rotation_degrees == params.max_scale_change == 0:
        return images
    batch, _, height, width = images.shape
    draws = torch.rand(5, batch, generator=generator, device=images.device) * 2 - 1
    angle = draws[0] * math.radians(params.max_rotation_degrees)
    scale_x = 1 + draws[1] * params.max_scale_change
    scale_y = 1 + draws[2] * params.max_scale_change
    shift_x = draws[3] * params.max_shift_pixels * 2 / width  # a width is 2 units of the grid
    shift_y = draws[4] * params.max_shift_pixels * 2 / height
    cosine, sine = angle.cos(), angle.sin()
    aspect = height / width  # keeps rotations rigid on images that are not square
    rows = (
        torch.stack([cosine * scale_x, -sine * scale_y * aspect, shift_x], dim=1),
        torch.stack([sine * scale_x / aspect, cosine * scale_y, shift_y], dim=1),
    )
    affine = torch.stack(rows, dim=1)  # [batch, 2, 3]
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)
