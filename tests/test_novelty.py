"""P-values are honest on exchangeable images, small on blank ones and noise, and an image's own."""

import math

import pytest
import torch
from torch import Tensor, nn

from diptych.novelty import NoveltyDetector, NoveltyReference, fit_novelty, split_state
from diptych.vae.model import Vae, build_vae

SHAPE = (1, 6, 7)
RATE_OF_ONES = 0.2
HALF_STEP = 1 / 128 + 1e-4  # nats: of a rounded score from its exact value


class ConstantEncoder(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images), 4)  # mean 0, log-variance 0: the prior


class ConstantDecoder(nn.Module):
    def forward(self, latents: Tensor) -> Tensor:
        return torch.full((len(latents), *SHAPE), math.log(RATE_OF_ONES / (1 - RATE_OF_ONES)))


@pytest.fixture
def constant(vae_params):
    """An autoencoder whose bound is exact: every pixel is 1 with the same probability."""
    return Vae(ConstantEncoder(), ConstantDecoder(), vae_params(num_latents=2), ()).eval()


@pytest.fixture
def colourful(vae_params):
    """An untrained autoencoder of colour images that are not square."""
    torch.manual_seed(0)
    return build_vae(vae_params(), (3, 8, 9)).eval()


def dim_images(num: int, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> Tensor:
    """Pixels are 1 with probability 0.2 when drawn."""
    noise = torch.Generator().manual_seed(seed)
    return torch.randint(0, 103, (num, *shape), generator=noise, dtype=torch.uint8)


def detector_of(vae: Vae, images: Tensor, seed: int = 0) -> NoveltyDetector:
    return NoveltyDetector(vae, fit_novelty(vae, images, seed)).eval()


def with_scores(vae: Vae, scores_nats: Tensor) -> NoveltyDetector:
    shape = (1, 1, 1)
    reference = NoveltyReference(torch.zeros(shape), torch.zeros(1, 2), scores_nats.sort().values)
    return NoveltyDetector(vae, reference)


@pytest.mark.parametrize("num_values", [1, 7, 1000], ids=["all tied", "ties", "few ties"])
def test_exchangeable_scores_have_p_at_most_a_with_probability_at_most_a(constant, num_values):
    """Exact, false-alarm probability 0: each of 200 scores in turn is new, the others known."""
    noise = torch.Generator().manual_seed(num_values)
    scores = torch.randint(0, num_values, (200,), generator=noise).float()
    p_values = torch.cat(
        [
            with_scores(constant, torch.cat([scores[:i], scores[i + 1 :]])).p_values(
                scores[i, None]
            )
            for i in range(len(scores))
        ]
    )
    assert (p_values > 0).all()
    assert (p_values <= 1).all()
    for level in p_values.unique():
        assert (p_values <= level).double().mean() <= level


def test_images_of_one_source_are_declined_as_often_as_the_level_says(colourful):
    """Expected: 5 % of 400, with a deviation of 1.5 %; 12 % has a probability below 1e-5."""
    known, new = dim_images(400, (3, 8, 9)), dim_images(400, (3, 8, 9), seed=1)
    detector = detector_of(colourful, known)
    share = (detector.p_values(detector.scores_nats(new)) <= 0.05).double().mean()
    assert 0 < share < 0.12


def test_the_score_is_the_negative_elbo_meaned_over_draws(colourful):
    images = dim_images(5, (3, 8, 9))
    detector = detector_of(colourful, images)
    binary = (images / 255 > detector.uniforms).float()
    with torch.no_grad():
        bounds = [colourful(binary, one.expand(5, -1)).negative_elbo for one in detector.noise]
    assert len(bounds) > 1
    expected = torch.stack(bounds).mean(dim=0)
    torch.testing.assert_close(detector.scores_nats(images), expected, rtol=0, atol=HALF_STEP)


def test_an_exact_bound_is_the_likelihood_of_the_binary_image(constant):
    images = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, *SHAPE)
    scores = detector_of(constant, dim_images(3)).scores_nats(images)
    expected = -42 * torch.tensor([1 - RATE_OF_ONES, RATE_OF_ONES]).log()
    torch.testing.assert_close(scores, expected, rtol=0, atol=HALF_STEP)


def test_blank_white_and_noise_images_have_the_smallest_p(constant):
    """A blank image's bound is better than any usual one's."""
    detector = detector_of(constant, dim_images(999))
    noise = dim_images(20, seed=2) * 2  # twice as bright
    unusual = torch.cat([torch.zeros(1, *SHAPE), torch.full((1, *SHAPE), 255)]).to(torch.uint8)
    assert detector.p_values(detector.scores_nats(unusual)).tolist() == [2 / 1000] * 2
    p_values = detector.p_values(detector.scores_nats(noise))
    assert p_values.median() <= 0.01


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_as_novel_as_can_be(constant, score):
    detector = with_scores(constant, torch.arange(99.0))
    assert detector.p_values(torch.tensor([score])).tolist() == [2 / 100]


def test_p_values_by_hand(constant):
    detector = with_scores(constant, torch.tensor([1.0, 2.0, 2.0, 5.0]))
    p_values = detector.p_values(torch.tensor([0.0, 1.0, 2.0, 3.0, 5.0, 6.0]))
    torch.testing.assert_close(p_values, torch.tensor([0.4, 0.8, 1, 0.8, 0.8, 0.4]).double())


@pytest.mark.parametrize("num", [1, 5, 99, 100, 199])
@pytest.mark.parametrize("level", [0.0, 0.01, 0.02, 0.1, 0.5, 0.99])
def test_the_accepted_range_holds_the_scores_with_p_above_the_level(constant, num, level):
    detector = with_scores(constant, torch.arange(float(num)) // 2)
    scores = torch.linspace(-1, num / 2 + 1, 4 * num + 9)
    low, high = detector.accepted_range_nats(level)
    expected = detector.p_values(scores) > level
    assert torch.equal((scores >= low) & (scores <= high), expected)
    if level == 0:
        assert expected.all()


def test_an_images_score_depends_neither_on_the_batch_nor_on_other_images(colourful):
    """In the last bits it does, which moves few scores by a step."""
    images = dim_images(503, (3, 8, 9))
    detector = detector_of(colourful, dim_images(300, (3, 8, 9), seed=1))
    whole = detector.scores_nats(images)
    assert whole.unique().numel() > 100
    order = torch.randperm(503, generator=torch.Generator().manual_seed(0))
    in_sevens = torch.cat([detector.scores_nats(part) for part in images.split(7)])
    for again in (detector.scores_nats(images[order])[order.argsort()], in_sevens):
        torch.testing.assert_close(again, whole, rtol=0, atol=1 / 64)
        assert (again != whole).sum() <= 5
        assert (detector.p_values(again) != detector.p_values(whole)).sum() <= 5
    assert detector.scores_nats(images[:0]).shape == (0,)


def test_the_reference_is_a_function_of_the_seed_and_of_validation(colourful):
    images = dim_images(30, (3, 8, 9))
    first, again = (
        fit_novelty(colourful, images, 0).state(),
        fit_novelty(colourful, images, 0).state(),
    )
    other = fit_novelty(colourful, images, 1).state()
    assert list(first) == ["novelty.uniforms", "novelty.noise", "novelty.scores_nats"]
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name])
        assert not torch.equal(tensor, other[name])
    detector = detector_of(colourful, images)
    assert torch.equal(detector.scores_nats(images).sort().values, first["novelty.scores_nats"])


def test_of_very_many_images_some_are_drawn(constant):
    """More than 10,000 of one image, and few of another: the share drawn tells."""
    images = torch.zeros(10_500, *SHAPE, dtype=torch.uint8)
    images[10_000:] = 255
    scores = fit_novelty(constant, images, 0).scores_nats
    assert len(scores) == 10_000
    assert 400 <= (scores > scores.min() + 1).sum() < 500


def test_the_state_of_an_autoencoder_and_its_reference_come_apart_again(colourful):
    state, reference = colourful.state_dict(), fit_novelty(colourful, dim_images(3, (3, 8, 9)), 0)
    own, tensors = split_state(state | reference.state())
    assert list(own) == list(state)
    assert torch.equal(NoveltyReference(**tensors).scores_nats, reference.scores_nats)
