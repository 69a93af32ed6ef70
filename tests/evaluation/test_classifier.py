import numpy as np
import pytest
import torch

from diptych.cnn.model import build_cnn
from diptych.evaluation.classifier import evaluate_classifier
from diptych.images.batches import ResidentSet


def test_every_image_is_a_row_in_the_sets_order(brightest, three_pixels, cpu):
    """1003 images take more than one batch."""
    images = three_pixels(1003)
    evaluation = evaluate_classifier(brightest, images, cpu)
    rows = evaluation.per_image
    assert list(rows) == ["label", "prediction", "confidence", "label_nll_nats"]
    assert len(rows) == 1003
    assert np.array_equal(rows["label"], images.labels.numpy())
    assert np.array_equal(rows["prediction"], images.images.flatten(1).argmax(dim=1).numpy())
    expected = (8 * images.images.flatten(1).double() / 255).softmax(dim=1).numpy()
    np.testing.assert_allclose(evaluation.probabilities, expected, rtol=1e-5)
    np.testing.assert_allclose(rows["confidence"], expected.max(axis=1), rtol=1e-5)
    of_label = np.take_along_axis(expected, images.labels.numpy()[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(rows["label_nll_nats"], -np.log(of_label), rtol=1e-4, atol=1e-6)


def test_figures_are_the_means_of_the_rows(brightest, three_pixels, cpu):
    evaluation = evaluate_classifier(brightest, three_pixels(1003), cpu)
    rows, figures = evaluation.per_image, evaluation.figures
    right = rows["prediction"] == rows["label"]
    assert figures["num_images"] == 1003
    assert figures["accuracy"] == right.mean() == pytest.approx(902 / 1003)
    assert figures["nll_nats"] == pytest.approx(rows["label_nll_nats"].mean())
    per_class = right.groupby(rows["label"]).mean()
    assert figures["per_class_accuracy"] == pytest.approx(tuple(per_class))


def test_temperature_changes_confidence_and_nothing_else(brightest, three_pixels, cpu):
    images = three_pixels(50)
    before = evaluate_classifier(brightest, images, cpu)
    brightest.temperature.fill_(4.0)
    after = evaluate_classifier(brightest, images, cpu)
    assert after.figures["temperature"] == 4
    assert after.figures["accuracy"] == before.figures["accuracy"]
    assert (after.per_image["confidence"] < before.per_image["confidence"]).all()
    plain = {"nll_nats": before.figures["nll_nats"], "ece": before.figures["ece"]}
    assert after.figures["uncalibrated"] == before.figures["uncalibrated"] == plain
    np.testing.assert_array_equal(after.uncalibrated_probabilities, before.probabilities)


def test_labels_have_no_say_in_predictions(brightest, three_pixels, cpu):
    images = three_pixels(50)
    shifted = ResidentSet(images.images, (images.labels + 1) % 3)
    first, second = (evaluate_classifier(brightest, one, cpu) for one in (images, shifted))
    np.testing.assert_array_equal(first.probabilities, second.probabilities)
    assert first.figures["accuracy"] != second.figures["accuracy"]


def test_a_classifier_left_in_training_mode_is_evaluated_as_one_that_is_not(
    cnn_params, striped, cpu
):
    torch.manual_seed(0)
    model = build_cnn(cnn_params(), (1, 8, 8), 3, [0.2], [0.3])
    expected = evaluate_classifier(model.eval(), striped(12), cpu).figures
    assert evaluate_classifier(model.train(), striped(12), cpu).figures == expected
