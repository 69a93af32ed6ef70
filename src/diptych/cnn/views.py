"""Affine views of images: random ones for training, fixed ones for prediction."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from diptych.cnn.params import CnnTrainingParams


@dataclass(frozen=True, slots=True)
class View:
    """From where in an image each pixel of a view is taken: scaled, rotated and shifted.

    Numbers, or one per image as [batch, 1, 1].

    Attributes:
        angle: Of the rotation about the centre, in radians.
        scale_x: Along the view's rows; below 1 what is seen grows, below 0 it is mirrored.
        scale_y: Along its columns.
        shift_x: In pixels, to the right.
        shift_y: In pixels, downwards.
    """

    angle: float | Float[Tensor, "batch 1 1"] = 0.0
    scale_x: float | Float[Tensor, "batch 1 1"] = 1.0
    scale_y: float | Float[Tensor, "batch 1 1"] = 1.0
    shift_x: float | Float[Tensor, "batch 1 1"] = 0.0
    shift_y: float | Float[Tensor, "batch 1 1"] = 0.0

    def of(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the view of each image, resampled bilinearly; black comes in at the borders."""
        batch, _, height, width = images.shape
        angle = torch.as_tensor(self.angle, device=images.device)
        cosine, sine = angle.cos(), angle.sin()
        x = torch.arange(width, device=images.device) + 0.5 - width / 2  # pixels, from the centre
        y = (torch.arange(height, device=images.device) + 0.5 - height / 2)[:, None]
        # Without affine_grid's matrix product, for speed. A side is 2 units of the grid.
        from_x = (x * cosine * self.scale_x - y * sine * self.scale_y + self.shift_x) * 2 / width
        from_y = (x * sine * self.scale_x + y * cosine * self.scale_y + self.shift_y) * 2 / height
        grid = torch.stack([from_x, from_y], dim=-1).expand(batch, height, width, 2)
        return functional.grid_sample(images, grid, align_corners=False)


def augment(
    images: Float[Tensor, "batch channels height width"],
    params: CnnTrainingParams,
    generator: torch.Generator,
) -> Float[Tensor, "batch channels height width"]:
    """Rotate, scale, shift and mirror each image by random amounts.

    Args:
        images: Pixels from 0 (black) to 1.
        params: The largest changes; with all of them 0 the images are returned as they are.
        generator: On the images' device.
    """
    if not (
        params.max_shift_pixels
        or params.max_rotation_degrees
        or params.max_scale_change
        or params.mirror
    ):
        return images
    shape = (6, len(images), 1, 1)
    draws = torch.rand(shape, generator=generator, device=images.device) * 2 - 1
    view = View(
        angle=draws[0] * math.radians(params.max_rotation_degrees),
        scale_x=(1 + draws[1] * params.max_scale_change) * _side(draws[5], params.mirror),
        scale_y=1 + draws[2] * params.max_scale_change,
        shift_x=draws[3] * params.max_shift_pixels,
        shift_y=draws[4] * params.max_shift_pixels,
    )
    return view.of(images)


def prediction_views(params: CnnTrainingParams) -> Iterator[View]:
    """Yield what a prediction sees beside the image itself.

    These are the mirrored image, four diagonal shifts, a rotation either way, and one scaling up
    and one down; each as far as its parameter is not 0.
    """
    if params.mirror:
        yield View(scale_x=-1.0)
    shift = params.view_shift_pixels
    if shift > 0:
        yield from (View(shift_x=x, shift_y=y) for x in (-shift, shift) for y in (-shift, shift))
    angle = math.radians(params.view_rotation_degrees)
    if angle > 0:
        yield from (View(angle=-angle), View(angle=angle))
    change = params.view_scale_change
    if change > 0:
        yield from (View(scale_x=scale, scale_y=scale) for scale in (1 - change, 1 + change))


def _side(draws: Float[Tensor, "batch 1 1"], mirror: bool) -> float | Float[Tensor, "batch 1 1"]:
    return torch.where(draws < 0, -1.0, 1.0) if mirror else 1.0
