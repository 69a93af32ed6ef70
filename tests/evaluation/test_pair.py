"""Figures of abstention and novelty, from p-values that can be counted by hand."""

import numpy as np
import pytest
import torch

from diptych.evaluation.pair import evaluate_pair, novel_images, novelty_auroc
from diptych.novelty import NoveltyDetector, fit_novelty

LEVEL = 0.1


@pytest.fixture
def evaluation(tiny_vae, striped):
    """Of 90 images like the reference's 90, of noise, of inverted and rotated ones, of blanks."""
    vae = tiny_vae((1, 8, 8))
    detector = NoveltyDetector(vae, fit_novelty(vae, striped(90).images, 0))
    test = striped(90, seed=1).images
    novel = novel_images(test, {"blank": np.zeros((7, 1, 8, 8), np.uint8)}, seed=0)
    return evaluate_pair(detector, test, novel, LEVEL)


def test_novel_images_are_what_their_names_say(striped):
    test = striped(6).images
    other = np.full((2, 1, 8, 8), 7, np.uint8)
    made = novel_images(test, {"seven": other}, seed=0)
    assert list(made) == ["noise", "inverted", "rotated", "seven"]
    assert made["noise"].shape == test.shape
    assert made["noise"].unique().numel() > 150
    assert torch.equal(made["inverted"].int() + test, torch.full_like(test, 255).int())
    # The left column, from the bottom, was the upper row: a quarter turn.
    assert torch.equal(made["rotated"][..., 0].flip(-1), test[..., 0, :])
    np.testing.assert_array_equal(made["seven"], other)
    assert torch.equal(made["noise"], novel_images(test, {}, seed=0)["noise"])
    assert not torch.equal(made["noise"], novel_images(test, {}, seed=1)["noise"])


def test_images_that_are_not_square_are_not_rotated(striped):
    assert list(novel_images(striped(6, width=9).images, {}, 0)) == ["noise", "inverted"]


def test_figures_are_those_of_the_table(evaluation):
    rows, figures = evaluation.per_image, evaluation.figures
    assert list(rows) == ["novelty_p_value", "accepted"]
    assert len(rows) == figures["num_images"] == figures["num_reference_images"] == 90
    assert rows["accepted"].equals(rows["novelty_p_value"] > LEVEL)
    assert figures["abstention_share"] == pytest.approx(1 - rows["accepted"].mean())
    assert figures["abstention_level"] == LEVEL


def test_every_novel_set_has_its_figures(evaluation):
    figures, sets = evaluation.figures, ["noise", "inverted", "rotated", "blank"]
    assert list(figures["novelty_auroc"]) == list(figures["novel_abstention_share"]) == sets
    assert list(evaluation.novel_nats) == sets
    assert list(evaluation.usual_nats) == ["validation", "test"]
    low, high = evaluation.accepted_range_nats
    for name, nats in evaluation.novel_nats.items():
        share = ((nats < low) | (nats > high)).mean()
        assert figures["novel_abstention_share"][name] == pytest.approx(share)
    assert figures["novelty_auroc"]["inverted"] > 0.9


def test_the_auroc_counts_pairs_and_ties_by_half():
    usual, novel = np.array([0.5, 0.2, 1.0]), np.array([0.1, 0.5])
    smaller = (novel < usual[:, None]).mean() + 0.5 * (novel == usual[:, None]).mean()
    assert novelty_auroc(usual, novel) == pytest.approx(smaller)
    assert novelty_auroc(usual, usual) == pytest.approx(0.5)
    assert novelty_auroc(usual, np.array([0.1])) == 1.0
