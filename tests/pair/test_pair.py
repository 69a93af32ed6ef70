"""The pair's answers are those of its members, whatever the batch."""

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from diptych.cnn.model import build_cnn
from diptych.novelty import NoveltyDetector, fit_novelty
from diptych.pair.pair import Pair, PairError
from diptych.vae.model import build_vae

SHAPE = (3, 8, 9)
LEVEL = 0.1


def random_images(num: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num, *SHAPE), np.uint8)


@pytest.fixture
def members(cnn_params, vae_params):
    """An untrained classifier, and a detector that knows 99 images of noise."""
    torch.manual_seed(0)
    cnn = build_cnn(cnn_params(), SHAPE, 4, [0.5] * 3, [0.3] * 3).eval()
    with torch.no_grad():
        logits = cnn.predict_logits(torch.from_numpy(random_images(50)) / 255)
        cnn.get_parameter("members.0.1.bias").sub_(logits.mean(dim=0))  # no class is everyone's
        cnn.temperature.fill_(logits.std(dim=0).mean())
    vae = build_vae(vae_params(), SHAPE).eval()
    reference = fit_novelty(vae, torch.from_numpy(random_images(99, seed=1)), 0)
    return cnn, NoveltyDetector(vae, reference).eval()


@pytest.fixture
def pair(members):
    cnn, novelty = members
    return Pair(cnn, novelty, tuple("abcd"), LEVEL)


def test_answers_are_those_of_the_members(pair, members):
    cnn, novelty = members
    images = random_images(300)
    answers, tensor = pair.answer(images), torch.from_numpy(images)
    with torch.no_grad():
        probabilities = cnn.log_probabilities(tensor / 255).exp().numpy()
    np.testing.assert_allclose(answers.probabilities, probabilities, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(answers.classes, answers.probabilities.argmax(axis=1))
    assert len(np.unique(answers.classes)) > 1
    p_values = novelty.p_values(novelty.scores_nats(tensor)).numpy()
    np.testing.assert_allclose(answers.novelty_p_value, p_values, atol=2 / 100)
    np.testing.assert_array_equal(answers.accepted, answers.novelty_p_value > LEVEL)
    assert 0 < answers.accepted.mean() < 1


def test_an_answer_does_not_depend_on_the_batch(pair):
    images = random_images(252)
    whole = pair.answer(images)
    for i in (0, 249, 250, 251):
        alone = pair.answer(images[i : i + 1])
        np.testing.assert_allclose(alone.probabilities, whole.probabilities[i : i + 1], rtol=1e-4)
        # One in the last digit of a score can move it past one score of the reference.
        np.testing.assert_allclose(alone.novelty_p_value, whole.novelty_p_value[[i]], atol=2 / 100)


def test_no_images_have_no_answers(pair):
    answers = pair.answer(random_images(0))
    assert answers.classes.shape == answers.novelty_p_value.shape == answers.accepted.shape == (0,)
    assert answers.probabilities.shape == (0, 4)


def test_a_pair_says_what_it_takes_and_gives(pair):
    assert pair.image_shape == SHAPE
    assert pair.class_names == ("a", "b", "c", "d")
    assert pair.abstention_level == LEVEL


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (np.zeros((2, 3, 9, 8), np.uint8), r"uint8 of shape \[2, 3, 9, 8\]"),
        (np.zeros((2, 1, 8, 9), np.uint8), r"uint8 of shape \[2, 1, 8, 9\]"),
    ],
)
def test_images_of_another_shape_are_refused_in_one_line(pair, images, found):
    message = rf"^images: must be uint8 of shape \[num, 3, 8, 9\] \(got {found}\)$"
    with pytest.raises(PairError, match=message):
        pair.answer(images)


def test_pixels_of_another_type_are_refused(pair):
    """By the check of types, which tests run with, or else by the pair itself."""
    with pytest.raises((PairError, TypeCheckError)):
        pair.answer(np.zeros((2, *SHAPE), np.float32))


def test_read_only_images_are_welcome(pair):
    images = random_images(2)
    images.setflags(write=False)
    assert len(pair.answer(images).classes) == 2
