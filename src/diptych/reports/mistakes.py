"""The mistakes that a classifier is surest of."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.figure import Figure

from diptych.reports.checks import (
    check_class_names,
    check_labels,
    check_not_empty,
    check_probabilities,
)
from diptych.reports.grids import arrange_images
from diptych.reports.sheets import Captions, heading_figure, sheet_figure


def most_confident_mistakes(
    labels: Int[np.ndarray, " image"],
    probabilities: Float[np.ndarray, "image class"],
    num_mistakes: int,
) -> Int[np.ndarray, " mistake"]:
    """Return which images are classified wrongly, the surest first, at most `num_mistakes`.

    Equal confidences keep the order of the images.
    """
    predictions = probabilities.argmax(axis=1)
    mistakes = np.flatnonzero(predictions != labels)
    by_confidence = np.argsort(-probabilities[mistakes].max(axis=1), kind="stable")
    return mistakes[by_confidence[:num_mistakes]]


def mistakes_figure(
    images: UInt8[np.ndarray, "image channel height width"],
    labels: Int[np.ndarray, " image"],
    probabilities: Float[np.ndarray, "image class"],
    class_names: Sequence[str],
    num_mistakes: int = 24,
    num_columns: int = 8,
) -> Figure:
    """Show the most confident mistakes, each with true → predicted class and confidence.

    Args:
        images: 1 or 3 channels.
        labels: True classes, counted from 0.
        probabilities: The classifier's, each row a distribution.
        class_names: One per class.
        num_mistakes: At most this many are shown, >= 1.
        num_columns: At most this many in a row, >= 1.

    Raises:
        ReportError: when there is no image, a label is no class, a row no distribution, or there
            is not a name for every class.
    """
    check_not_empty("labels", len(labels))
    check_class_names(class_names, probabilities.shape[1])
    check_labels("labels", labels, len(class_names))
    check_probabilities("probabilities", probabilities)
    num_wrong = int((probabilities.argmax(axis=1) != labels).sum())
    title = "Most confident mistakes"
    count = f"{num_wrong:,} of {len(labels):,} images misclassified"
    if num_wrong == 0:
        return heading_figure(Captions(title, count))
    shown = most_confident_mistakes(labels, probabilities, num_mistakes)
    captions = Captions(
        title,
        note=f"{count}; true → predicted, confidence",
        cells=[_caption(labels[image], probabilities[image], class_names) for image in shown],
    )
    return sheet_figure(arrange_images(images[shown], num_columns), captions)


def _caption(label: np.integer, probabilities: np.ndarray, class_names: Sequence[str]) -> str:
    prediction = int(probabilities.argmax())
    true, predicted = class_names[int(label)], class_names[prediction]
    separator = " " if len(true) + len(predicted) <= 6 else "\n"
    return f"{true}{separator}→ {predicted}\n{probabilities[prediction]:.2%}"
