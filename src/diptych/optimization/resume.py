"""What an interrupted training needs to go on, bit for bit, behind its last step.

The parts of a training follow torch's convention: `state_dict()` gives nested dicts with string
keys whose leaves are tensors or JSON values, and `load_state_dict()` takes them back.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from diptych.optimization.progress import EpochReport, OnEpoch, require_finite

State = Mapping[str, Any]


@runtime_checkable
class Stateful(Protocol):
    """A part of a training that changes from step to step."""

    def state_dict(self) -> State:
        """Return what it has become; tensors may be its own, to be copied before the next step."""

    def load_state_dict(self, state: State, /) -> Any:
        """Become it again."""


@runtime_checkable
class Checkpoints(Protocol):
    """Where a training keeps its state, and when."""

    def load(self) -> State | None:
        """Return the state to go on from; None to start at the beginning."""

    def is_due(self) -> bool:
        """Tell whether to save now; asked after every step, so the answer costs nothing."""

    def save(self, state: State) -> None:
        """Keep a state that replaces the last; may end the training by an exception."""


class BestEpoch:
    """The epoch whose figure is lowest so far, with the weights that the model had then.

    Args:
        model: Its weights as they are now stand for epoch 0.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._weights = copy.deepcopy(model.state_dict())
        self.figure = math.inf
        """Lower is better; infinite before the first epoch."""
        self.epoch = 0
        """1-based; 0 before the first."""

    def offer(self, figure: float, epoch: int) -> None:
        """Keep the model's present weights if the figure is lower than all before."""
        if figure < self.figure:
            self.figure, self.epoch = figure, epoch
            self._weights = copy.deepcopy(self._model.state_dict())

    def put_back(self) -> None:
        """Give the model the weights of the best epoch."""
        self._model.load_state_dict(self._weights)

    def state_dict(self) -> State:
        """Return figure, epoch and weights."""
        figure = self.figure if self.epoch else None  # infinity is no JSON value
        return {"figure": figure, "epoch": self.epoch, "weights": self._weights}

    def load_state_dict(self, state: State) -> None:
        """Take figure, epoch and weights back."""
        self.epoch = state["epoch"]
        self.figure = state["figure"] if self.epoch else math.inf
        for name, tensor in state["weights"].items():
            self._weights[name].copy_(tensor)


class History:
    """The reports of the epochs that are done.

    Args:
        on_epoch: Gets each of them, once; after a restoration those from before it again.
    """

    def __init__(self, on_epoch: OnEpoch) -> None:
        self._on_epoch = on_epoch
        self.reports: list[EpochReport] = []
        """In the epochs' order."""

    def add(self, report: EpochReport) -> None:
        """Add an epoch's report and pass it on."""
        self.reports.append(report)
        self._on_epoch(report)

    def state_dict(self) -> State:
        """Return the reports by epoch."""
        return {
            str(report.epoch): {
                "num_epochs": report.num_epochs,
                "metrics": dict(report.metrics),
                "images": dict(report.images),
            }
            for report in self.reports
        }

    def load_state_dict(self, state: State) -> None:
        """Take the reports back and pass them on."""
        for epoch in sorted(state, key=int):
            self.add(EpochReport(epoch=int(epoch), **state[epoch]))


class EpochProgress:
    """How far an epoch has come.

    Args:
        device: Where losses are added up and noise is drawn.
    """

    def __init__(self, device: torch.device) -> None:
        self.noise = torch.Generator(device)
        """Of augmentation, binarisation and latents."""
        self.order: tuple[Shaped[Tensor, " num"], ...] = ()
        """What the epoch goes through, such as images' positions, and their weights."""
        self._total_loss = torch.zeros((), device=device)
        self.num_steps = 0
        """Done in this epoch."""

    def start(self, order: Sequence[Shaped[Tensor, " num"]], noise: torch.Generator) -> None:
        """Begin an epoch, unless it was restored in the midst of it."""
        if self.num_steps == 0:
            self.order, self.noise = tuple(order), noise

    def add(self, loss: Float[Tensor, ""]) -> None:
        """Note a step, without waiting for the device."""
        self._total_loss += loss
        self.num_steps += 1

    def require_finite(self, where: str) -> None:
        """Stop a training one of whose losses in this epoch was NaN or infinite.

        Raises:
            DivergedError: naming where.
        """
        require_finite(self._total_loss, where)

    def finish(self) -> Float[Tensor, ""]:
        """End the epoch; return the mean of its losses."""
        mean = self._total_loss / self.num_steps
        self._total_loss, self.num_steps = torch.zeros_like(mean), 0
        return mean

    def state_dict(self) -> State:
        """Return order, noise, total and number of steps."""
        return {
            "order": {str(index): tensor for index, tensor in enumerate(self.order)},
            "noise": self.noise.get_state(),
            "total_loss": self._total_loss,
            "num_steps": self.num_steps,
        }

    def load_state_dict(self, state: State) -> None:
        """Take them back."""
        order, device = state["order"], self._total_loss.device
        self.order = tuple(order[str(index)].to(device) for index in range(len(order)))
        self.noise.set_state(state["noise"])
        self._total_loss.copy_(state["total_loss"])
        self.num_steps = state["num_steps"]


class TensorState:
    """A tensor that a training changes in place.

    Args:
        tensor: On any device.
    """

    def __init__(self, tensor: Shaped[Tensor, "..."]) -> None:
        self._tensor = tensor

    def state_dict(self) -> State:
        """Return the tensor."""
        return {"tensor": self._tensor}

    def load_state_dict(self, state: State) -> None:
        """Copy the values back into the same tensor."""
        self._tensor.copy_(state["tensor"])


class TrainingState:
    """A training and all that changes in it, saved and restored together.

    Args:
        model: On the device.
        optimizer: Of the model.
        on_epoch: Gets each epoch's report; after a restoration those from before it again.
        device: Where the training happens.
        checkpoints: Where the state is kept and found again; None: nowhere.
        **others: What else changes, under the names that the saved state has.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Stateful,
        on_epoch: OnEpoch,
        device: torch.device,
        checkpoints: Checkpoints | None,
        **others: Stateful,
    ) -> None:
        self.best = BestEpoch(model)
        self.history = History(on_epoch)
        self.progress = EpochProgress(device)
        self._checkpoints = checkpoints
        self._parts: dict[str, Stateful] = {
            "model": model,
            "optimizer": optimizer,
            "best": self.best,
            "history": self.history,
            "progress": self.progress,
            **others,
        }

    def restore(self) -> None:
        """Go back to the saved state, if there is one."""
        state = None if self._checkpoints is None else self._checkpoints.load()
        if state is not None:
            for name, part in self._parts.items():
                part.load_state_dict(state[name])

    def save_if_due(self, where: str) -> None:
        """Save after a step; from here on a restored training does what this one does.

        Args:
            where: The epoch's name.

        Raises:
            DivergedError: instead of replacing a good state by one that is lost.
        """
        if self._checkpoints is not None and self._checkpoints.is_due():
            self.progress.require_finite(where)
            parts = self._parts.items()
            self._checkpoints.save({name: part.state_dict() for name, part in parts})
