"""The mistakes shown are mistakes, the surest first, however few there are."""

import numpy as np
import pytest

from diptych.reports.checks import ReportError
from diptych.reports.mistakes import mistakes_figure, most_confident_mistakes
from diptych.reports.style import figure_png

NAMES = ["0", "1", "a long name"]
LABELS = np.array([0, 1, 2, 0, 1])
PROBABILITIES = np.array(
    [
        [0.90, 0.05, 0.05],  # right
        [0.60, 0.20, 0.20],  # 1 → 0
        [0.10, 0.80, 0.10],  # 2 → 1
        [0.20, 0.20, 0.60],  # 0 → 2
        [0.00, 1.00, 0.00],  # right
    ]
)


def some_images(channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, channels, 6, 6), dtype=np.uint8)


def captions_of(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize(("num_mistakes", "expected"), [(1, [2]), (2, [2, 1]), (9, [2, 1, 3])])
def test_the_surest_come_first_and_equals_in_the_order_of_the_images(num_mistakes, expected):
    found = most_confident_mistakes(LABELS, PROBABILITIES, num_mistakes)
    np.testing.assert_array_equal(found, expected)


def test_each_mistake_tells_true_and_predicted_class_and_confidence():
    figure = mistakes_figure(some_images(), LABELS, PROBABILITIES, NAMES)
    title, note, *cells = captions_of(figure)
    assert title == "Most confident mistakes"
    assert note.startswith("3 of 5 images misclassified")
    assert cells == ["a long name\n→ 1\n80.00%", "1 → 0\n60.00%", "0\n→ a long name\n60.00%"]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_images_shown_are_the_misclassified_ones(channels):
    images = some_images(channels)
    right = images.copy()
    right[[0, 4]] = 0
    wrong = images.copy()
    wrong[2] = 0
    plain, other_right, other_wrong = (
        figure_png(mistakes_figure(shown, LABELS, PROBABILITIES, NAMES, num_columns=2))
        for shown in (images, right, wrong)
    )
    assert plain == other_right != other_wrong


def test_no_mistakes_are_a_figure_that_says_so():
    figure = mistakes_figure(some_images(), PROBABILITIES.argmax(axis=1), PROBABILITIES, NAMES)
    assert captions_of(figure) == ["Most confident mistakes", "0 of 5 images misclassified"]
    assert figure_png(figure)


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        (LABELS + 1, NAMES, r"labels: must be in 0\.\.2 \(got 3\)"),
        (LABELS, NAMES[:2], r"class_names: must be 3, one per class \(got 2\)"),
    ],
)
def test_values_that_do_not_belong_together_are_refused(labels, names, message):
    with pytest.raises(ReportError, match=message):
        mistakes_figure(some_images(), labels, PROBABILITIES, names)
