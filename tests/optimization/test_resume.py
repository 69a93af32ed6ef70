import pytest
import torch
from torch import nn

from diptych.optimization.progress import DivergedError
from diptych.optimization.resume import State, TrainingState


class Kept:
    """Keeps states in memory after every step."""

    def __init__(self) -> None:
        self.states: list[State] = []

    def load(self) -> None:
        return None

    def is_due(self) -> bool:
        return True

    def save(self, state: State) -> None:
        self.states.append(state)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_state_whose_losses_are_not_finite_replaces_no_good_one(bad):
    """Where a loss is not read in every step, as on a GPU."""
    model, kept = nn.Linear(1, 1), Kept()
    state = TrainingState(model, model, lambda _: None, torch.device("cpu"), kept)
    state.progress.add(torch.tensor(1.0))
    state.save_if_due("train_cnn epoch 1")
    state.progress.add(torch.tensor(bad))
    state.progress.add(torch.tensor(1.0))
    with pytest.raises(DivergedError, match=r"^train_cnn epoch 1: the loss must be finite"):
        state.save_if_due("train_cnn epoch 1")
    assert len(kept.states) == 1
