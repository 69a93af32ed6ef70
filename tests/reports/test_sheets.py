"""Contact sheets: images unblurred, captions beside what they name, nothing cut off."""

import io

import numpy as np
import pytest
from PIL import Image

from diptych.reports.checks import ReportError
from diptych.reports.sheets import IMAGE_PIXELS, Captions, sheet_figure
from diptych.reports.style import figure_png

RED, GREEN = (200, 10, 20), (10, 200, 20)


def page_of(figure) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(figure_png(figure))).convert("RGB"))


def box_of(page, colour) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of all pixels of exactly this colour."""
    rows, columns = np.nonzero((page == colour).all(axis=2))
    return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1


def flat(colour, height=28, width=28) -> np.ndarray:
    return np.broadcast_to(np.array(colour, dtype=np.uint8)[:, None, None], (3, height, width))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_pixels_of_an_image_become_exact_squares(channels):
    image = np.random.default_rng(0).integers(0, 250, (channels, 12, 12), dtype=np.uint8)
    page = page_of(sheet_figure(image[None, None], Captions("A title")))
    scale = IMAGE_PIXELS // 12
    expected = image.transpose(1, 2, 0).repeat(scale, axis=0).repeat(scale, axis=1)
    expected = np.broadcast_to(expected, (*expected.shape[:2], 3))
    windows = np.lib.stride_tricks.sliding_window_view(page, expected.shape)[:, :, 0]
    starts = np.argwhere((windows[:, :, 0, 0] == expected[0, 0]).all(axis=2))
    assert any(np.array_equal(windows[row, column], expected) for row, column in starts)


def test_neighbours_are_apart_by_the_gap_and_rows_lie_below_each_other():
    images = np.stack([np.stack([flat(RED), flat(RED)]), np.stack([flat(GREEN), flat(GREEN)])])
    page = page_of(sheet_figure(images, Captions("A title"), gap=10))
    top, bottom, left, right = box_of(page, RED)
    assert (bottom - top, right - left) == (84, 2 * 84 + 10)
    assert box_of(page, GREEN) == (bottom + 10, bottom + 94, left, right)


def test_captions_make_room_and_stand_by_their_images():
    images = np.stack([np.stack([flat(RED), flat(GREEN)])])
    captions = Captions("T", "n", ["a row"], ["left", "a very wide caption"], ["1", "two\nlines"])
    figure = sheet_figure(images, captions)
    page = page_of(figure)
    where = {text.get_text(): text.get_position() for text in figure.axes[0].texts}
    for colour, column, cell in [(RED, "left", "1"), (GREEN, "a very wide caption", "two\nlines")]:
        top, bottom, left, right = box_of(page, colour)
        assert where[column][0] == where[cell][0] == (left + right) / 2
        assert where[column][1] < top < bottom < where[cell][1]
    top, bottom, left, _ = box_of(page, RED)
    assert where["a row"][0] < left
    assert where["a row"][1] == (top + bottom) / 2


def test_no_text_touches_the_rim_or_another():
    images = np.stack([np.stack([flat(RED), flat(GREEN)])] * 2)
    long = "quite a long caption"
    captions = Captions("A title wider than all of the images together, and then some", long)
    captions = Captions(captions.title, long, [long] * 2, [long] * 2, [f"{long}\n{long}"] * 4)
    figure = sheet_figure(images, captions)
    page = page_of(figure)
    height, width, _ = page.shape
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    for number, box in enumerate(boxes):
        assert min(box.x0, box.y0, width - box.x1, height - box.y1) >= 5
        assert not any(box.overlaps(other) for other in boxes[:number])


def test_frames_surround_the_images_chosen():
    images = np.stack([np.stack([flat(RED), flat(GREEN)])])
    framed = np.array([[False, True]])
    page = page_of(sheet_figure(images, Captions("T"), framed))
    assert box_of(page, RED)[1] - box_of(page, RED)[0] == 84
    assert box_of(page, GREEN)[1] - box_of(page, GREEN)[0] < 84


def test_large_and_oblong_images_keep_their_form():
    page = page_of(sheet_figure(flat(RED, 100, 300)[None, None], Captions("T")))
    top, bottom, left, right = box_of(page, RED)
    assert (bottom - top, right - left) == (100, 300)


@pytest.mark.parametrize("shape", [(0, 1, 1, 4, 4), (1, 1, 1, 0, 4), (1, 1, 2, 4, 4)])
def test_what_is_no_sheet_is_refused(shape):
    with pytest.raises(ReportError, match="images: must"):
        sheet_figure(np.zeros(shape, dtype=np.uint8), Captions("T"))
