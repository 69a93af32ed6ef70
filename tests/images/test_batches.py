import numpy as np
import pytest
import torch
from torch import Tensor

from diptych.images.arrays import ImageSet
from diptych.images.batches import (
    equal_steps,
    num_steps_per_epoch,
    to_device,
    to_pixels,
    to_unit_interval,
)
from diptych.optimization.seeding import generator

CPU = torch.device("cpu")


def order(num_images: int, batch_size: int, epoch: int = 1) -> list[Tensor]:
    positions = torch.randperm(num_images, generator=generator(0, "order", epoch))
    return list(equal_steps(positions, batch_size))


@pytest.mark.parametrize(
    ("num_images", "batch_size", "num_steps"),
    [(12, 4, 3), (10, 4, 2), (11, 4, 3), (3, 4, 1), (1, 512, 1), (55000, 512, 107)],
)
def test_an_epoch_is_cut_into_equal_steps_and_shows_no_image_twice(
    num_images, batch_size, num_steps
):
    assert num_steps_per_epoch(num_images, batch_size) == num_steps
    batches = order(num_images, batch_size)
    assert [len(batch) for batch in batches] == [num_images // num_steps] * num_steps
    seen = torch.cat(batches)
    assert len(seen.unique()) == len(seen) > num_images - num_steps
    assert set(seen.tolist()) <= set(range(num_images))


def test_equal_steps_that_fit_show_every_image():
    assert torch.equal(torch.cat(order(12, 4)).sort().values, torch.arange(12))


def test_the_images_left_over_differ_from_epoch_to_epoch():
    left_over = {
        frozenset(range(10)) - set(torch.cat(order(10, 3, epoch)).tolist()) for epoch in range(9)
    }
    assert len(left_over) > 1


def test_a_read_only_set_is_copied_to_the_device():
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2)
    labels = np.array([1, 0])
    images.flags.writeable = labels.flags.writeable = False
    resident = to_device(ImageSet(images, labels), CPU)
    assert len(resident) == 2
    assert np.array_equal(resident.images.numpy(), images)
    assert resident.labels.tolist() == [1, 0]


def test_bytes_to_the_unit_interval_and_back_is_the_identity():
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    unit = to_unit_interval(every)
    assert (unit.min().item(), unit.max().item()) == (0, 1)
    assert np.array_equal(to_pixels(unit), every.numpy())


def test_pixels_are_rounded_and_kept_within_a_byte():
    values = torch.tensor([-0.1, 0.4 / 255, 0.6 / 255, 254.6 / 255, 1.1]).view(1, 1, 1, 5)
    assert to_pixels(values).flatten().tolist() == [0, 0, 1, 255, 255]
