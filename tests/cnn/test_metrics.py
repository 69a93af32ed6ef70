import math

import pytest
import torch
from torch import Tensor

from diptych.cnn.metrics import classifier_metrics, expected_calibration_error, fit_temperature

PROBABILITIES = torch.tensor([[0.7, 0.2, 0.1], [0.6, 0.4, 0.0], [0.1, 0.8, 0.1], [0.4, 0.5, 0.1]])
LABELS = torch.tensor([0, 1, 1, 0])


def nll(logits: Tensor, labels: Tensor, temperature: float) -> float:
    log_probabilities = (logits.double() / temperature).log_softmax(dim=1)
    return classifier_metrics(log_probabilities, labels).nll_nats


def test_figures_computed_by_hand():
    metrics = classifier_metrics(PROBABILITIES.log(), LABELS)
    assert metrics.num_images == 4
    assert metrics.accuracy == 0.5
    logs = [math.log(p) for p in (0.7, 0.4, 0.8, 0.4)]
    assert metrics.nll_nats == pytest.approx(-sum(logs) / 4)
    assert metrics.per_class_accuracy == (0.5, 0.5, None)
    # Four bins of 15 hold one image each, right with 0.7 and 0.8, wrong with 0.6 and 0.5.
    assert metrics.ece == pytest.approx((0.3 + 0.2 + 0.6 + 0.5) / 4)


def test_errors_of_opposite_sign_cancel_within_a_bin_and_not_across():
    confidence = torch.tensor([0.55, 0.95, 0.9, 0.7])
    correct = torch.tensor([True, True, False, True])
    # (0.5, 1]: one of four wrong at a mean confidence of 0.775.
    assert expected_calibration_error(confidence, correct, 2) == pytest.approx(0.025)
    # (0.5, 0.75]: gaps 0.45 + 0.3; (0.75, 1]: 0.05 - 0.9.
    assert expected_calibration_error(confidence, correct, 4) == pytest.approx(1.6 / 4)


def test_a_bin_holds_its_upper_edge():
    confidence = torch.tensor([0.5, 0.5, 0.51, 0.51])
    correct = torch.tensor([True, True, False, False])
    assert expected_calibration_error(confidence, correct, 2) == pytest.approx(2.02 / 4)


@pytest.mark.parametrize(("right", "ece"), [(True, 0.0), (False, 1.0)])
def test_the_extremes_of_calibration(right, ece):
    assert expected_calibration_error(torch.ones(5), torch.full((5,), right)) == ece
    assert expected_calibration_error(torch.zeros(5), torch.full((5,), not right)) == ece


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_a_known_temperature_is_recovered(temperature):
    """Labels in exactly the proportions 7 : 2 : 1 that the logits claim at this temperature."""
    labels = torch.tensor([0] * 7 + [1] * 2 + [2])
    logits = (temperature * torch.tensor([0.7, 0.2, 0.1]).log()).expand(10, 3)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=1e-5)


@pytest.mark.parametrize("seed", range(10))
def test_fitting_never_worsens_the_likelihood(seed):
    random = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(200, 4, generator=random)
    labels = torch.multinomial(logits.softmax(dim=1).sqrt(), 1, generator=random)[:, 0]
    fitted = fit_temperature(logits, labels)
    best = nll(logits, labels, fitted)
    assert all(best <= nll(logits, labels, fitted * factor) + 1e-12 for factor in (0.9, 1.1))
    assert best <= nll(logits, labels, 1.0) + 1e-12


@pytest.mark.parametrize(("label", "limit"), [(0, 0.01), (1, 100.0)])
def test_without_a_minimum_the_temperature_ends_at_a_limit(label, limit):
    """All right: ever sharper would be better; all wrong: ever flatter."""
    logits = torch.tensor([[2.0, -1.0]]).expand(6, 2)
    assert fit_temperature(logits, torch.full((6,), label)) == pytest.approx(limit)
