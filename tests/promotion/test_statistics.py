"""Paired tests: exact where they say so, honest under the null hypothesis, right in direction."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]
from scipy.special import gammaln  # type: ignore[import-untyped]
from scipy.stats import ttest_1samp  # type: ignore[import-untyped]

from diptych.promotion.statistics import (
    bootstrap_p_value,
    bootstrapped_means,
    comparison_generator,
    mcnemar_p_value,
    not_less_accurate_p_value,
)

COUNTS = st.integers(0, 300)
MARGINS = st.floats(1e-4, 0.5)


def tail(gained: int, num: int) -> Fraction:
    """P(at least so many heads of `num` fair coins), by counting."""
    return Fraction(sum(math.comb(num, heads) for heads in range(gained, num + 1)), 2**num)


@given(COUNTS, COUNTS)
def test_mcnemar_is_the_tail_of_fair_coins(gained: int, lost: int) -> None:
    assert mcnemar_p_value(gained, lost) == pytest.approx(
        float(tail(gained, gained + lost)), rel=1e-9
    )


def test_mcnemar_of_known_tables() -> None:
    assert mcnemar_p_value(0, 0) == 1
    assert mcnemar_p_value(0, 7) == 1
    assert mcnemar_p_value(5, 0) == 1 / 32
    assert mcnemar_p_value(9, 1) == pytest.approx(11 / 1024)
    assert mcnemar_p_value(10_000, 9_000) < 1e-11


@given(COUNTS, COUNTS)
def test_of_two_models_at_most_one_is_better(gained: int, lost: int) -> None:
    both = mcnemar_p_value(gained, lost) + mcnemar_p_value(lost, gained)
    ties = float(Fraction(math.comb(gained + lost, gained), 2 ** (gained + lost)))
    assert both == pytest.approx(1 + ties)


@pytest.mark.parametrize("num", [1, 5, 20, 61])
@pytest.mark.parametrize("level", [0.01, 0.05, 0.2])
def test_mcnemar_raises_no_more_false_alarms_than_it_says(num: int, level: float) -> None:
    """Exactly: summed over all tables of a null hypothesis."""
    false_alarm = sum(
        math.comb(num, gained) / 2**num
        for gained in range(num + 1)
        if mcnemar_p_value(gained, num - gained) <= level
    )
    assert false_alarm <= level + 1e-12


def score_p_value(gained: int, lost: int, num: int, margin: float) -> float:
    """By its definition: the likelihood is maximised numerically where the loss is the margin."""

    def negative_log_likelihood(loss: float) -> float:
        gain = loss - margin
        terms = [(gained, gain), (lost, loss), (num - gained - lost, 1 - gain - loss)]
        return -sum(count * math.log(max(p, 1e-300)) for count, p in terms if count)

    bounds = (margin, (1 + margin) / 2)
    loss = minimize_scalar(
        negative_log_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-12}
    ).x
    variance = num * (2 * loss - margin - margin**2)
    return math.erfc((gained - lost + num * margin) / math.sqrt(2 * variance)) / 2


@given(COUNTS, COUNTS, st.integers(0, 2000), MARGINS)
def test_not_less_accurate_is_the_score_test(
    gained: int, lost: int, others: int, margin: float
) -> None:
    num = gained + lost + others + 1
    expected = score_p_value(gained, lost, num, margin)
    found = not_less_accurate_p_value(gained, lost, num, margin)
    assert found == pytest.approx(expected, abs=1e-4)


@given(st.integers(1, 300), COUNTS)
def test_without_a_margin_the_score_is_mcnemars(gained: int, lost: int) -> None:
    z = (gained - lost) / math.sqrt(gained + lost)
    found = not_less_accurate_p_value(gained, lost, 1000, 1e-12)
    assert found == pytest.approx(math.erfc(z / math.sqrt(2)) / 2, rel=1e-5)


@given(COUNTS, COUNTS, MARGINS, MARGINS)
def test_not_less_accurate_follows_gains_losses_and_margin(
    gained: int, lost: int, margin: float, other_margin: float
) -> None:
    p_value = not_less_accurate_p_value(gained, lost, 1000, margin)
    assert not_less_accurate_p_value(gained + 1, lost, 1000, margin) <= p_value
    assert not_less_accurate_p_value(gained, lost + 1, 1000, margin) >= p_value
    low, high = sorted((margin, other_margin))
    assert not_less_accurate_p_value(gained, lost, 1000, high) <= (
        not_less_accurate_p_value(gained, lost, 1000, low) + 1e-12
    )


@pytest.mark.parametrize("num_images", [1000, 10_000])
@pytest.mark.parametrize("gain", [0.0, 0.002, 0.01])
@pytest.mark.parametrize("level", [0.01, 0.05])
def test_a_real_loss_of_the_margin_is_seldom_ruled_out(
    num_images: int, gain: float, level: float
) -> None:
    """Exactly: summed over the tables of a loss that is the margin. The test is asymptotic, so
    that its false alarms may exceed the level by a little.
    """
    margin = 0.002
    loss = gain + margin
    largest = int(num_images * loss + 8 * math.sqrt(num_images * loss)) + 10
    false_alarm = 0.0
    for gained in range(largest if gain else 1):
        losts = [
            lost
            for lost in range(largest)
            if not_less_accurate_p_value(gained, lost, num_images, margin) <= level
        ]
        if losts:
            lost_counts = np.array(losts)
            others = num_images - gained - lost_counts
            log_p = gammaln(num_images + 1) - gammaln(gained + 1) - gammaln(lost_counts + 1)
            log_p = log_p - gammaln(others + 1) + lost_counts * math.log(loss)
            log_p += gained * math.log(gain) if gained else 0.0
            log_p += others * math.log(1 - gain - loss)
            false_alarm += float(np.exp(log_p).sum())
    assert false_alarm <= 1.05 * level


@pytest.mark.parametrize("margin", [0.0, 1.0, -0.1, math.nan])
def test_a_margin_that_is_none_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match=r"margin: must be in \(0, 1\)"):
        not_less_accurate_p_value(0, 0, 10, margin)


def test_resamples_of_two_values_are_as_frequent_as_coins() -> None:
    """Of 40,000 means each of 0, 1/2 and 1 is within 5 standard deviations: fails once in 10⁶."""
    means = bootstrapped_means(np.array([0.0, 1.0]), 40_000, np.random.default_rng(0))
    shares = [float((means == value).mean()) for value in (0, 0.5, 1)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=5 * 0.5 / 200)


def test_resampled_means_spread_as_the_standard_error_says() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=5000)
    means = bootstrapped_means(values, 2000, np.random.default_rng(2))
    assert len(means) == 2000
    assert means.mean() == pytest.approx(values.mean(), abs=5 * means.std() / math.sqrt(2000))
    assert means.std() == pytest.approx(values.std() / math.sqrt(5000), rel=0.1)


def test_resamples_do_not_depend_on_what_fits_into_memory_at_once() -> None:
    values = np.random.default_rng(3).normal(size=3_000_000)
    generator = np.random.default_rng(4)
    expected = [values[generator.integers(len(values), size=len(values))].mean() for _ in range(2)]
    found = bootstrapped_means(values, 2, np.random.default_rng(4))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_an_equal_mean_is_seldom_called_better() -> None:
    """Of 500 null hypotheses at level 0.05; 0.09 would be 4 standard deviations too many."""
    random = np.random.default_rng(5)
    p_values = [
        bootstrap_p_value(bootstrapped_means(random.normal(size=200), 199, random), 0.0)
        for _ in range(500)
    ]
    share = float((np.array(p_values) <= 0.05).mean())
    assert 0.02 <= share <= 0.09


def test_the_bootstrap_agrees_with_students_test_where_both_hold() -> None:
    random = np.random.default_rng(6)
    for shift in (-0.06, -0.02, 0.0, 0.02):
        values = random.normal(shift, size=2000)
        found = bootstrap_p_value(bootstrapped_means(values, 4000, random), 0.0)
        expected = ttest_1samp(values, 0.0, alternative="less").pvalue
        assert found == pytest.approx(expected, abs=0.04)


@given(st.integers(0, 2**32), st.floats(-1, 1), st.floats(-1, 1))
def test_bootstrapped_p_values_are_probabilities_and_fall_with_the_margin(
    seed: int, margin: float, other_margin: float
) -> None:
    random = np.random.default_rng(seed)
    means = bootstrapped_means(random.normal(size=20), 99, random)
    low, high = sorted((margin, other_margin))
    p_values = bootstrap_p_value(means, high), bootstrap_p_value(means, low)
    assert 0.01 <= p_values[0] <= p_values[1] <= 1


@given(st.integers(0, 2**32))
def test_the_mirrored_difference_has_the_mirrored_p_value(seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=20)
    means = bootstrapped_means(values, 99, np.random.default_rng(seed))
    mirrored = bootstrapped_means(-values, 99, np.random.default_rng(seed))
    assert bootstrap_p_value(means, 0.0) + bootstrap_p_value(mirrored, 0.0) == pytest.approx(1.01)


def test_randomness_is_a_function_of_both_models() -> None:
    def first(*digests: str) -> int:
        return int(comparison_generator(*digests).integers(2**62))

    assert first("a", "b") == first("a", "b")
    assert len({first("a", "b"), first("b", "a"), first("a", "c"), first("c", "b")}) == 4
