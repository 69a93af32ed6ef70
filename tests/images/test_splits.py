import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.images.integrity import DataError
from diptych.images.splits import stratified_split


@st.composite
def splittable(draw):
    """Labels, a number of classes, and a number to hold out that every class can share in."""
    counts = draw(st.lists(st.integers(3, 30), min_size=1, max_size=5))
    labels = np.repeat(np.arange(len(counts)), counts)
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(labels))
    smallest = min(counts)
    num_validation = draw(
        st.integers(-(-len(labels) // smallest), len(labels) * (smallest - 1) // smallest)
    )
    return labels[order], len(counts), num_validation


@settings(deadline=None, database=None)
@given(splittable(), st.integers(0, 2**70))
def test_a_split_is_complete_exact_and_proportional(case, seed):
    labels, num_classes, num_validation = case
    train, validation = stratified_split(labels, num_classes, num_validation, seed)
    assert len(validation) == num_validation
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(len(labels)))
    assert np.all(np.diff(train) > 0)
    assert np.all(np.diff(validation) > 0)
    held_out = np.bincount(labels[validation], minlength=num_classes)
    shares = np.bincount(labels) * num_validation / len(labels)
    assert np.all(np.abs(held_out - shares) < 1)


def test_a_split_is_the_same_everywhere():
    _, validation = stratified_split(np.arange(20) % 2, 2, 6, seed=3)
    assert validation.tolist() == [0, 1, 4, 7, 9, 16]


def test_the_seed_decides():
    labels = np.arange(100) % 2
    first, again, other = (stratified_split(labels, 2, 50, seed)[1] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("counts", "num_validation", "message"),
    [
        ([5, 5], 10, r"preprocess.num_validation: must be < 10, .* \(got 10\)"),
        ([5, 5], 10**40, r"must be < 10"),
        ([5, 5], 1, r"each class a training and a validation image \(got 0 of the 5 .* class 1"),
        ([9, 1], 9, r"\(got 1 of the 1 images of class 1 for validation\)"),
        ([5, 0, 5], 4, r"\(got 0 of the 0 images of class 1 for validation\)"),
    ],
)
def test_a_split_that_leaves_a_class_without_images_is_refused(counts, num_validation, message):
    labels = np.repeat(np.arange(len(counts)), counts)
    with pytest.raises(DataError, match=message):
        stratified_split(labels, len(counts), num_validation, seed=0)
