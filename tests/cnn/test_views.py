"""What happens to an image is read off its blobs' centres of mass."""

import math

import torch
from torch import Tensor

from diptych.cnn.params import CnnTrainingParams
from diptych.cnn.views import View, augment, prediction_views

HEIGHT, WIDTH = 40, 60
CENTRE = ((WIDTH - 1) / 2, (HEIGHT - 1) / 2)


def blob(x: float, y: float) -> Tensor:
    """A round spot, smooth enough that resampling moves its centre by no more than 0.02 pixels."""
    distance_x = torch.arange(WIDTH)[None, :] - x
    distance_y = torch.arange(HEIGHT)[:, None] - y
    return (-(distance_x**2 + distance_y**2) / (2 * 2.5**2)).exp()


def centres(images: Tensor) -> Tensor:
    """Return x and y of each channel's centre of mass, in pixels: [batch, channels, 2]."""
    mass = images.sum(dim=(2, 3))
    x = (images.sum(dim=2) * torch.arange(WIDTH)).sum(dim=2) / mass
    y = (images.sum(dim=3) * torch.arange(HEIGHT)).sum(dim=2) / mass
    return torch.stack([x, y], dim=2)


def augmented(
    params: CnnTrainingParams, *points: tuple[float, float], num_images: int = 400, seed: int = 0
) -> Tensor:
    """Return where points go, in each of many images: [image, point, 2]."""
    image = torch.stack([blob(*point) for point in points])
    images = image.expand(num_images, -1, -1, -1)
    return centres(augment(images, params, torch.Generator().manual_seed(seed)))


def test_without_strength_images_stay_as_they_are(cnn_params):
    images = torch.rand(3, 2, 5, 7)
    assert torch.equal(augment(images, cnn_params(), torch.Generator()), images)


def test_shifts_are_in_pixels_in_both_directions(cnn_params):
    (moved,) = augmented(cnn_params(max_shift_pixels=3.0), CENTRE).unbind(dim=1)
    shifts = moved - torch.tensor(CENTRE)
    # Of 400 uniform draws none is within 5 % of an end with probability 0.975^400 = 4e-5.
    for along in shifts.unbind(dim=1):
        assert -3.001 < along.min() < -2.85
        assert 2.85 < along.max() < 3.001
    assert abs(torch.corrcoef(shifts.T)[0, 1]) < 0.25, "x and y are drawn apart (5 sigma: 6e-7)"


def test_rotations_are_rigid_about_the_centre_on_images_that_are_not_square(cnn_params):
    right, below = (CENTRE[0] + 12, CENTRE[1]), (CENTRE[0], CENTRE[1] + 12)
    moved = augmented(cnn_params(max_rotation_degrees=30.0), CENTRE, right, below)
    centre, right_arm, below_arm = moved[:, 0], moved[:, 1] - moved[:, 0], moved[:, 2] - moved[:, 0]
    torch.testing.assert_close(centre, torch.tensor(CENTRE).expand(400, 2), atol=0.02, rtol=0)
    for arm in (right_arm, below_arm):
        torch.testing.assert_close(arm.norm(dim=1), torch.full((400,), 12.0), atol=0.05, rtol=0)
    torch.testing.assert_close((right_arm * below_arm).sum(dim=1), torch.zeros(400), atol=1, rtol=0)
    angles = torch.atan2(right_arm[:, 1], right_arm[:, 0]) * 180 / math.pi
    assert -30.2 < angles.min() < -28.5
    assert 28.5 < angles.max() < 30.2


def test_width_and_height_are_scaled_apart(cnn_params):
    right, below = (CENTRE[0] + 12, CENTRE[1]), (CENTRE[0], CENTRE[1] + 12)
    moved = augmented(cnn_params(max_scale_change=0.2), CENTRE, right, below)
    torch.testing.assert_close(moved[:, 0], torch.tensor(CENTRE).expand(400, 2), atol=0.02, rtol=0)
    scales = torch.stack([moved[:, 1, 0], moved[:, 2, 1]], dim=1) - torch.tensor(CENTRE)
    for along in (scales / 12).unbind(dim=1):
        assert 1 / 1.2 - 0.01 < along.min() < 0.85
        assert 1.2 < along.max() < 1 / 0.8 + 0.01
    assert abs(torch.corrcoef(scales.T)[0, 1]) < 0.25


def test_black_comes_in_at_the_borders(cnn_params):
    params = cnn_params(max_shift_pixels=2.0, max_rotation_degrees=15.0, max_scale_change=0.1)
    images = augment(torch.ones(50, 1, 8, 8), params, torch.Generator().manual_seed(0))
    assert images.min() == 0
    assert images.max() <= 1 + 1e-6
    torch.testing.assert_close(images[:, :, 3:5, 3:5], torch.ones(50, 1, 2, 2))


def test_the_generator_decides(cnn_params):
    params = cnn_params(max_shift_pixels=2.0)
    first, again, other = (augmented(params, CENTRE, num_images=5, seed=s) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_view_of_no_change_is_the_image():
    images = torch.rand(3, 2, 5, 7)
    torch.testing.assert_close(View().of(images), images)


def test_a_shifted_view_takes_its_pixels_from_there():
    images = torch.rand(2, 1, 6, 8)
    view = View(shift_x=2.0, shift_y=-1.0).of(images)
    torch.testing.assert_close(view[..., 1:, :-2], images[..., :-1, 2:])
    torch.testing.assert_close(view[..., 0, :], torch.zeros(2, 1, 8))
    torch.testing.assert_close(view[..., -2:], torch.zeros(2, 1, 6, 2))


def test_a_quarter_turn_is_a_quarter_turn():
    images = torch.rand(2, 1, 6, 6)
    turned = View(angle=math.pi / 2).of(images)
    torch.testing.assert_close(turned, images.rot90(1, (2, 3)), atol=1e-5, rtol=1e-5)


def test_each_kind_of_prediction_view_has_its_parameter(cnn_params):
    def views(**changes: float) -> list[View]:
        return list(prediction_views(cnn_params(**changes)))

    assert views() == []
    shifted = views(view_shift_pixels=0.5)
    assert {(view.shift_x, view.shift_y) for view in shifted} == {
        (x, y) for x in (-0.5, 0.5) for y in (-0.5, 0.5)
    }
    rotated = [View(angle=-math.pi / 6), View(angle=math.pi / 6)]
    assert views(view_rotation_degrees=30.0) == rotated
    scaled = [View(scale_x=scale, scale_y=scale) for scale in (0.75, 1.25)]
    assert views(view_scale_change=0.25) == scaled
    everything = views(view_shift_pixels=0.5, view_rotation_degrees=30.0, view_scale_change=0.25)
    assert everything == [*shifted, *rotated, *scaled]
    assert views(mirror=True) == [View(scale_x=-1.0)]


def test_half_of_the_images_are_mirrored(cnn_params):
    """The share of 400 is within 5 standard errors: 6e-7 false alarms."""
    left = (CENTRE[0] - 12, CENTRE[1])
    moved = augmented(cnn_params(mirror=True), left)[:, 0]
    distance = (moved - torch.tensor(CENTRE)).abs() - torch.tensor([12.0, 0.0])
    assert distance.abs().max() < 0.05
    share = (moved[:, 0] > CENTRE[0]).float().mean()
    assert abs(share - 0.5) < 5 * 0.5 / 400**0.5
    images = torch.rand(2, 3, 5, 6)
    torch.testing.assert_close(View(scale_x=-1.0).of(images), images.flip(3))
