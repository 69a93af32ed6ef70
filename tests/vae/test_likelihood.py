import pytest
import torch
from torch.distributions import Bernoulli

from diptych.vae.likelihood import bernoulli_log_likelihood, binarize


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_black_and_white_are_certain():
    images = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2).expand(1, 1, 50_000, 2)
    drawn = binarize(images, source())
    assert (drawn[..., 0] == 0).all()
    assert (drawn[..., 1] == 1).all()


def test_a_pixel_is_one_as_often_as_it_is_bright():
    """Each mean of 20,000 draws is within 5 standard errors: 6e-7 false alarms for each of 6."""
    values = torch.tensor([1, 32, 64, 128, 200, 254], dtype=torch.uint8)
    drawn = binarize(values.view(1, 6, 1, 1).expand(20_000, 6, 1, 1), source())
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    expected = values.double() / 255
    standard_errors = (expected * (1 - expected) / 20_000).sqrt()
    assert ((drawn.double().mean(dim=(0, 2, 3)) - expected).abs() < 5 * standard_errors).all()


def test_neighbours_are_drawn_independently():
    """Correlations of 20,000 pairs have a standard error of 0.007: 6e-7 false alarms for each."""
    images = torch.full((20_000, 1, 1, 8), 100, dtype=torch.uint8)
    drawn = binarize(images, source()).flatten(1)
    correlations = torch.corrcoef(drawn.T) - torch.eye(8)
    assert correlations.abs().max() < 5 / 20_000**0.5


@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_any_number_of_pixels_is_drawn(width):
    drawn = binarize(torch.full((1, 1, 1, width), 255, dtype=torch.uint8), source())
    assert torch.equal(drawn, torch.ones(1, 1, 1, width))


def test_the_generator_decides(grey):
    images = grey(2, 1, 8, 8)
    assert torch.equal(binarize(images, source(1)), binarize(images, source(1)))
    assert not torch.equal(binarize(images, source(1)), binarize(images, source(2)))


def test_the_likelihood_is_that_of_independent_bernoulli_pixels(binary):
    logits = 3 * torch.randn(5, 4, 3, 6, 7, generator=source())
    images = binary(4, 3, 6, 7)
    expected = Bernoulli(logits=logits).log_prob(images.expand_as(logits)).sum(dim=(2, 3, 4))
    result = bernoulli_log_likelihood(logits, images)
    assert result.shape == (5, 4), "one value per sample and image"
    assert (result < 0).all()
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize(("logit", "expected"), [(1e4, 0.0), (-1e4, -4e4)])
def test_certainty_is_finite(logit, expected):
    result = bernoulli_log_likelihood(torch.full((1, 2, 2), logit), torch.ones(1, 2, 2))
    assert result.item() == expected


def test_low_precision_logits_are_summed_in_full(binary):
    images = binary(2, 1, 28, 28)
    logits = torch.randn(2, 1, 28, 28, generator=source()).bfloat16()
    result = bernoulli_log_likelihood(logits, images)
    assert result.dtype == torch.float32
    assert torch.equal(result, bernoulli_log_likelihood(logits.float(), images))


@pytest.mark.parametrize("scale", [0.1, 3.0, 300.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_is_the_pixel_less_its_probability(binary, scale, dtype):
    """Against autograd through torch's own log-probabilities, in double precision."""
    images = binary(4, 3, 6, 7)
    logits = (scale * torch.randn(5, 4, 3, 6, 7, generator=source())).to(dtype).requires_grad_()
    weights = torch.randn(5, 4, generator=source(1))
    (weights * bernoulli_log_likelihood(logits, images)).sum().backward()
    exact = logits.detach().double().requires_grad_()
    log_probabilities = Bernoulli(logits=exact).log_prob(images.double().expand_as(exact))
    (weights * log_probabilities.sum(dim=(2, 3, 4))).sum().backward()
    assert logits.grad.dtype == dtype
    torch.testing.assert_close(logits.grad, exact.grad.to(dtype), rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("size", [0.0, 1.0, 8.0, 15.0, 20.0, 80.0])
def test_a_pixel_costs_what_it_does_in_double_precision(size):
    logits = torch.tensor([-size, size]).view(2, 1, 1, 1)
    images = torch.ones(2, 1, 1, 1)
    exact = torch.nn.functional.logsigmoid(logits.double()).flatten()
    result = bernoulli_log_likelihood(logits, images).double()
    torch.testing.assert_close(result, exact, rtol=1e-6, atol=1e-7)
