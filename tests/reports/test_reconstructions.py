"""Reconstructions stand under their originals."""

import numpy as np
import pytest

from diptych.reports.checks import ReportError
from diptych.reports.reconstructions import pair_images, reconstructions_figure
from diptych.reports.style import figure_png


def random_images(num_images: int, channels: int = 1) -> np.ndarray:
    shape = (num_images, channels, 4, 5)
    return np.random.default_rng(num_images).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_pair_is_the_original_a_white_line_and_the_reconstruction(channels):
    originals = random_images(3, channels)
    pairs = pair_images(originals, 255 - originals)
    np.testing.assert_array_equal(pairs[:, :, :4], originals)
    assert (pairs[:, :, 4] == 255).all()
    np.testing.assert_array_equal(pairs[:, :, 5:], 255 - originals)


def test_each_pair_has_its_distortion_below_and_the_note_their_mean():
    images = random_images(3)
    distortions = np.array([1.25, 20.0, 300.0], dtype=np.float32)
    figure = reconstructions_figure(images, images, distortions, num_columns=2)
    _, note, *cells = [text.get_text() for text in figure.axes[0].texts]
    assert cells == ["1.2", "20.0", "300.0"]
    assert "nats" in note
    assert "107.1" in note


def test_equal_values_give_equal_bytes_with_and_without_distortions():
    images = random_images(2, channels=3)
    for distortions in (None, np.ones(2)):
        first, second = (
            figure_png(reconstructions_figure(images, 255 - images, distortions)) for _ in range(2)
        )
        assert first == second


def test_what_is_not_finite_and_what_is_not_there_is_refused():
    images = random_images(3)
    with pytest.raises(ReportError, match=r"distortions_nats: must be finite \(got inf\)"):
        reconstructions_figure(images, images, np.array([1, np.inf, 1]))
    with pytest.raises(ReportError, match=r"images: must hold at least 1 \(got 0\)"):
        reconstructions_figure(images[:0], images[:0])
