"""Grids: every image in its place, pixel for pixel, and PNGs that are functions of them."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import diptych
from diptych.reports.checks import ReportError
from diptych.reports.grids import arrange_images, picture_png, save_grids, tile_images


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("padding", "below", "right"), [(0, 0, 0), (3, 3, 3), ((4, 1), 4, 1)])
def test_every_tile_is_in_its_place_and_all_else_is_background(channels, padding, below, right):
    images = random_images(2, 3, channels, 4, 5)
    picture = tile_images(images, padding, background=77)
    assert picture.shape == (2 * 4 + below, 3 * 5 + 2 * right, channels)
    for row in range(2):
        for column in range(3):
            tile = np.s_[row * (4 + below) :, column * (5 + right) :]
            found = picture[tile][:4, :5]
            np.testing.assert_array_equal(found, images[row, column].transpose(1, 2, 0))
            picture[tile][:4, :5] = 77
    assert (picture == 77).all()


def test_one_image_is_its_own_picture():
    image = random_images(1, 1, 3, 4, 5)
    np.testing.assert_array_equal(tile_images(image), image[0, 0].transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 1, 2, 4, 4), r"images: must have 1 or 3 channels \(got 2\)"),
        ((0, 3, 1, 4, 4), r"images: must hold at least 1 pixel"),
    ],
)
def test_what_is_no_picture_is_refused(shape, message):
    with pytest.raises(ReportError, match=message):
        tile_images(np.zeros(shape, dtype=np.uint8))


@pytest.mark.parametrize(
    ("num_images", "num_columns", "rows", "columns"),
    [(6, 3, 2, 3), (7, 3, 3, 3), (2, 10, 1, 2), (1, 1, 1, 1)],
)
def test_images_are_arranged_in_reading_order_and_the_rest_is_white(
    num_images, num_columns, rows, columns
):
    images = random_images(num_images, 1, 2, 2)
    cells = arrange_images(images, num_columns)
    assert cells.shape == (rows, columns, 1, 2, 2)
    flat = cells.reshape(-1, 1, 2, 2)
    np.testing.assert_array_equal(flat[:num_images], images)
    assert (flat[num_images:] == 255).all()


def test_no_images_cannot_be_arranged():
    with pytest.raises(ReportError, match=r"images: must hold at least 1 \(got 0\)"):
        arrange_images(np.zeros((0, 1, 2, 2), dtype=np.uint8), 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_holds_exactly_the_picture(channels):
    picture = random_images(3, 4, channels)
    read = np.asarray(Image.open(io.BytesIO(picture_png(picture)))).reshape(3, 4, channels)
    np.testing.assert_array_equal(read, picture)


def test_a_png_holds_nothing_but_the_picture():
    picture = random_images(3, 4, 1)
    assert picture_png(picture) == picture_png(picture.copy())
    assert Image.open(io.BytesIO(picture_png(picture))).info == {}


def test_saved_grids_are_their_images_side_by_side(tmp_path):
    grids = {"one": random_images(2, 3, 1, 4, 5), "two": random_images(1, 2, 3, 4, 5)}
    save_grids(tmp_path / "new", grids)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"one.png", "two.png"}
    for name, images in grids.items():
        expected = picture_png(tile_images(images))
        assert (tmp_path / "new" / f"{name}.png").read_bytes() == expected


def test_grids_need_neither_matplotlib_nor_torch():
    code = "import sys, diptych.reports.grids; print({'matplotlib', 'torch'} & set(sys.modules))"
    source = Path(diptych.__file__).parents[1]
    assert subprocess.check_output([sys.executable, "-c", code], cwd=source) == b"set()\n"
