import pytest
import torch

from diptych.cnn.selection import num_images_seen, select_images


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_first_epoch_sees_every_image():
    assert [num_images_seen(1000, epoch, 0.75) for epoch in (1, 2, 3)] == [1000, 250, 250]
    assert num_images_seen(1000, 2, 0.0) == 1000
    assert num_images_seen(7, 2, 0.99) == 2
    assert num_images_seen(1, 2, 0.99) == 1


def test_the_hardest_are_always_there_and_no_image_twice():
    losses = torch.randperm(20, generator=seeded(9)).float()
    for seed in range(5):
        positions, weights = select_images(losses, 8, seeded(seed))
        assert len(positions) == len(positions.unique()) == len(weights) == 8
        assert set(losses[positions].tolist()) >= {16.0, 17.0, 18.0, 19.0}


def test_the_sample_and_the_order_are_functions_of_the_generator():
    losses = torch.arange(50.0)
    first, again, other = (select_images(losses, 20, seeded(seed))[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert set(first.tolist()) != set(other.tolist())
    assert not torch.equal(first, first.sort().values)


@pytest.mark.parametrize("num_selected", [2, 3, 7, 12])
def test_the_weighted_mean_is_unbiased(num_selected):
    """20,000 choices, 5 standard errors: 6e-7 false alarms each."""
    losses = torch.tensor([5.0, 0.1, 3.0, 0.2, 0.4, 1.0, 0.3, 2.0, 0.0, 0.6, 0.5, 0.7])
    generator = seeded()
    means = []
    for _ in range(20_000):
        positions, weights = select_images(losses, num_selected, generator)
        means.append((losses[positions] * weights).mean())
    estimates = torch.stack(means).double()
    tolerance = 5 * estimates.std() / len(estimates) ** 0.5 + 1e-5
    assert abs(estimates.mean() - losses.mean()) < tolerance


def test_all_images_weigh_one():
    positions, weights = select_images(torch.rand(9), 9, seeded())
    assert positions.sort().values.tolist() == list(range(9))
    torch.testing.assert_close(weights, torch.ones(9))
