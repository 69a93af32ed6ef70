import pytest

from diptych.optimization.schedules import learning_rate_factor

PROGRESS = [0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0]
FACTORS = {
    "one_cycle": [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0],
    "cosine": [0.0, 0.5, 1.0, 0.853553, 0.5, 0.146447, 0.0],
    "constant": [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0],
}


@pytest.mark.parametrize("schedule", FACTORS)
def test_the_table(schedule):
    factors = [learning_rate_factor(schedule, p, warmup_fraction=0.2) for p in PROGRESS]
    assert factors == pytest.approx(FACTORS[schedule], abs=1e-6)


@pytest.mark.parametrize("schedule", FACTORS)
def test_without_a_warm_up_it_starts_at_the_peak(schedule):
    assert learning_rate_factor(schedule, 0.0, warmup_fraction=0.0) == 1
