"""Where a VAE puts the classes in its latent space, seen in a plane."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from diptych.reports.checks import ReportError, check_finite, check_labels
from diptych.reports.style import CLASS_COLOURS, class_colour, new_figure, styled

_GOLDEN_RATIO = (1 + 5**0.5) / 2


@dataclass(frozen=True, slots=True)
class PlaneView:
    """Latent vectors in a plane.

    Attributes:
        points: One per image, in units of latent space.
        axis_names: What the two coordinates are.
        note: How the plane was chosen, with the share of variance that it shows.
    """

    points: Float[np.ndarray, "image 2"]
    axis_names: tuple[str, str]
    note: str


def project_latents(
    latent_means: Float[np.ndarray, "image latent"], labels: Int[np.ndarray, " image"]
) -> PlaneView:
    """Choose the plane in which latent vectors are looked at.

    Two latents are shown as they are. More: in their first two principal directions, each with
    the sign that makes its largest component positive. One latent: against the class, spread
    within the class's band so that the points do not hide each other.
    """
    num_images, num_latents = latent_means.shape
    if num_latents == 1:
        spread = np.arange(num_images) * _GOLDEN_RATIO % 1 - 0.5
        points = np.stack([latent_means[:, 0], labels + 0.7 * spread], axis=1)
        return PlaneView(points, ("latent 1", "class number"), "the one latent, by class")
    if num_latents == 2:
        return PlaneView(latent_means, ("latent 1", "latent 2"), "both latents")
    return _principal_view(latent_means)


def _principal_view(latent_means: np.ndarray) -> PlaneView:
    centred = latent_means.astype(np.float64) - latent_means.mean(axis=0, dtype=np.float64)
    ascending_variances, directions = np.linalg.eigh(np.cov(centred.T))
    # A collapsed posterior has no variance at all.
    total = max(ascending_variances.sum(), np.finfo(np.float64).tiny)
    shares = np.clip(ascending_variances[[-1, -2]] / total, 0, 1)
    plane = directions[:, [-1, -2]]
    plane = plane * np.sign(plane[np.abs(plane).argmax(axis=0), [0, 1]])
    first, second = (
        f"principal direction {number} ({share:.1%} of variance)"
        for number, share in enumerate(shares, start=1)
    )
    note = f"{shares.sum():.1%} of the variance of {latent_means.shape[1]} latents"
    return PlaneView(centred @ plane, (first, second), note)


@styled()
def latents_figure(
    latent_means: Float[np.ndarray, "image latent"],
    labels: Int[np.ndarray, " image"],
    class_names: Sequence[str],
) -> Figure:
    """Draw the latent means of images in a plane, coloured by class, names at the medians.

    Args:
        latent_means: Means of q(z|x).
        labels: True classes, counted from 0.
        class_names: One per class.

    Raises:
        ReportError: when a label is no class, a latent is not finite, or there are fewer
            than two images.
    """
    check_labels("labels", labels, len(class_names))
    check_finite("latent_means", latent_means)
    if len(latent_means) < 2:
        raise ReportError(f"latent_means: must hold at least 2 images (got {len(latent_means)})")
    view = project_latents(latent_means, labels)
    figure = new_figure(7.2, 6.4)
    axes = figure.add_subplot()
    _draw_points(axes, view.points, labels)
    _draw_names(axes, view.points, labels, class_names)
    if latent_means.shape[1] > 1:
        axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel(view.axis_names[0])
    axes.set_ylabel(view.axis_names[1])
    if len(class_names) <= len(CLASS_COLOURS):
        _draw_legend(figure, labels, class_names)
    axes.set_title(f"Latent means of {len(labels):,} images: {view.note}")
    return figure


def _draw_points(axes: Axes, points: np.ndarray, labels: np.ndarray) -> None:
    # One call for all classes, in the order of the images: no class lies on top of the others.
    colours = [class_colour(label) for label in labels]
    size = float(np.clip(20_000 / len(points), 3, 25))
    axes.scatter(points[:, 0], points[:, 1], s=size, c=colours, alpha=0.6, linewidths=0)


def _draw_names(
    axes: Axes, points: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> None:
    size = 10 if len(class_names) <= 20 else 7
    for label in np.unique(labels):
        x, y = np.median(points[labels == label], axis=0)
        box = {"boxstyle": "round,pad=0.2", "fc": "white", "ec": class_colour(label), "lw": 1.5}
        name = class_names[label]
        axes.text(x, y, name, ha="center", va="center", size=size, weight="bold", bbox=box)


def _draw_legend(figure: Figure, labels: np.ndarray, class_names: Sequence[str]) -> None:
    present = np.unique(labels)
    dots = [Line2D([], [], color=class_colour(label), marker="o", linewidth=0) for label in present]
    figure.legend(dots, [class_names[label] for label in present], loc="outside right upper")
