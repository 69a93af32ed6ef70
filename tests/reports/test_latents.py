"""The plane in which latent means are shown: the same, whatever the order or the basis."""

import numpy as np
import pytest

from diptych.reports.checks import ReportError
from diptych.reports.latents import latents_figure, project_latents
from diptych.reports.style import figure_png

NUM_IMAGES = 60
LABELS = np.arange(NUM_IMAGES) % 3
NAMES = ["a", "b", "$c$", "absent"]


def latents(num_latents: int) -> np.ndarray:
    scales = np.linspace(3, 1, num_latents)
    return np.random.default_rng(0).normal(size=(NUM_IMAGES, num_latents)) * scales


def test_two_latents_are_shown_as_they_are():
    means = latents(2).astype(np.float32)
    np.testing.assert_array_equal(project_latents(means, LABELS).points, means)


def test_principal_directions_keep_the_variance_that_the_note_states():
    means = latents(6)
    view = project_latents(means, LABELS)
    share = view.points.var(axis=0) / means.var(axis=0).sum()
    assert share[0] > share[1]
    assert view.note == f"{share.sum():.1%} of the variance of 6 latents"
    assert f"({share[0]:.1%} of variance)" in view.axis_names[0]
    first, second = (view.points - view.points.mean(axis=0)).T
    assert abs(first @ second) < 1e-9 * NUM_IMAGES


def test_the_sign_makes_each_directions_largest_component_positive():
    means = latents(5)
    points = project_latents(means, LABELS).points
    directions = np.linalg.lstsq(means - means.mean(axis=0), points, rcond=None)[0].T
    for direction in directions:
        assert direction[np.abs(direction).argmax()] > 0


def test_the_order_of_the_images_does_not_move_them():
    means, order = latents(5), np.random.default_rng(1).permutation(NUM_IMAGES)
    points = project_latents(means, LABELS).points
    np.testing.assert_allclose(project_latents(means[order], LABELS[order]).points, points[order])


def test_one_latent_is_shown_in_a_band_per_class():
    means = latents(1)
    points = project_latents(means, LABELS).points
    np.testing.assert_array_equal(points[:, 0], means[:, 0])
    assert (np.abs(points[:, 1] - LABELS) < 0.5).all()


@pytest.mark.parametrize("num_latents", [1, 2, 7])
def test_each_class_that_is_there_is_named_at_its_median(num_latents):
    means = latents(num_latents)
    figure = latents_figure(means, LABELS, NAMES)
    view = project_latents(means, LABELS)
    shown = {text.get_text(): text.get_position() for text in figure.axes[0].texts}
    assert shown.keys() == {"a", "b", "$c$"}
    np.testing.assert_allclose(shown["b"], np.median(view.points[LABELS == 1], axis=0))
    assert figure_png(figure) == figure_png(latents_figure(means, LABELS, NAMES))


def test_a_collapsed_posterior_has_a_figure_too():
    figure = latents_figure(np.zeros((NUM_IMAGES, 4), dtype=np.float32), LABELS, NAMES)
    assert "0.0% of the variance" in figure.axes[0].get_title("left")
    assert figure_png(figure)


def test_more_classes_than_colours_are_told_apart_by_name():
    labels = np.arange(NUM_IMAGES)
    names = [f"class {label}" for label in labels]
    figure = latents_figure(latents(3), labels, names)
    assert [text.get_text() for text in figure.axes[0].texts] == names
    assert figure.legends == []


@pytest.mark.parametrize(
    ("means", "labels", "message"),
    [
        (latents(2), LABELS + 2, r"labels: must be in 0\.\.3 \(got 4\)"),
        (latents(2) * np.nan, LABELS, r"latent_means: must be finite \(got nan\)"),
        (latents(2)[:1], LABELS[:1], r"latent_means: must hold at least 2 images \(got 1\)"),
    ],
)
def test_values_that_do_not_belong_together_are_refused(means, labels, message):
    with pytest.raises(ReportError, match=message):
        latents_figure(means, labels, NAMES)
