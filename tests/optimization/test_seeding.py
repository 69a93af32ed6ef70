import pytest
import torch
from torch import Tensor

from diptych.optimization.seeding import generator


def draw(*keys: int | str) -> Tensor:
    return torch.rand(4, generator=generator(*keys))


def test_equal_keys_give_equal_numbers_on_every_machine():
    assert torch.equal(draw(0, "order", 1), draw(0, "order", 1))
    assert generator(0, "order", 1).initial_seed() == 125578804223736978


@pytest.mark.parametrize("other", [(1, "order", 1), (0, "noise", 1), (0, "order", 2), (0, "order")])
def test_any_other_key_gives_other_numbers(other):
    assert not torch.equal(draw(0, "order", 1), draw(*other))


def test_the_global_generator_is_not_touched():
    before = torch.get_rng_state()
    draw(0)
    assert torch.equal(torch.get_rng_state(), before)
