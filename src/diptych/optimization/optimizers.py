"""Optimisers, and the one object that steps them along a schedule."""

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diptych.optimization.params import OptimizationParams
from diptych.optimization.schedules import learning_rate_factor

_NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class _Uncompiled(torch.optim.Optimizer):
    """An optimiser without torch's compiler, whose import takes longer than some trainings.

    torch imports it in every method that a compiled step has to leave out; here no step is.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)


class AdamW(_Uncompiled, torch.optim.AdamW):
    """torch's own. Source: Loshchilov & Hutter (2019), "Decoupled weight decay regularization"."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


class Muon(_Uncompiled):
    """Momentum, orthogonalised: every update of a matrix has all its singular values near 1.

    Kernels [out, in, height, width] are taken as matrices [out, in * height * width].
    torch.optim.Muon takes matrices only.

    Source: Jordan et al. (2024), "Muon: an optimizer for hidden layers in neural networks".

    Args:
        params: Matrices and kernels.
        lr: Learning rate: the update's root mean square times the square root of its width.
        weight_decay: Decoupled, per unit of learning rate.
        momentum: Weight of the past in the running mean of gradients.
        num_iterations: Newton-Schulz iterations.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
        num_iterations: int = 5,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "num_iterations": num_iterations,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            updates = {
                parameter: self._update(parameter, parameter.grad, group["momentum"])
                for parameter in group["params"]
                if parameter.grad is not None
            }
            directions = orthogonalize(list(updates.values()), group["num_iterations"])
            for parameter, direction in zip(updates, directions, strict=True):
                num_rows, num_columns = direction.shape
                scale = max(1.0, num_rows / num_columns) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(direction.view_as(parameter), alpha=-group["lr"] * scale)

    def _update(self, parameter: Tensor, gradient: Tensor, momentum: float) -> Tensor:
        """Take the gradient into its running mean; return Nesterov's mixture of both, a matrix."""
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        mean = state["momentum"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(mean, momentum).flatten(1)


def orthogonalize(matrices: Sequence[Tensor], num_iterations: int) -> list[Tensor]:
    """Return nearly the orthogonal factor U V' of each matrix U S V'.

    A quintic Newton-Schulz iteration brings all singular values near 1 (into [0.68, 1.13] from any
    that is not tiny), which is as good as exact here. Every iterate is a polynomial of the Gram
    matrix X X' times X, so all of it happens on matrices of the shorter side; those of one size go
    through it together.

    Source: Jordan et al. (2024), coefficients included.

    Args:
        matrices: [rows, columns] each.
        num_iterations: Of Newton-Schulz, at least 1.
    """
    wide = [_normalized(matrix) for matrix in matrices]
    factors: dict[int, Tensor] = {}
    for side in {len(x) for x in wide}:
        positions = [i for i, x in enumerate(wide) if len(x) == side]
        grams = torch.stack([wide[i] @ wide[i].T for i in positions])
        factors.update(zip(positions, _newton_schulz(grams, num_iterations), strict=True))
    results = [(factors[i] @ x).to(matrices[i].dtype) for i, x in enumerate(wide)]
    return [
        result if _is_wide(matrix) else result.T
        for result, matrix in zip(results, matrices, strict=True)
    ]


def _normalized(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "short long"]:
    """Return a multiple of the matrix or its transpose, its largest singular value at most 1."""
    x = (matrix if _is_wide(matrix) else matrix.T).float()
    return x / (x.norm() + 1e-7)


def _is_wide(matrix: Float[Tensor, "rows columns"]) -> bool:
    return matrix.shape[0] <= matrix.shape[1]


def _newton_schulz(
    grams: Float[Tensor, "num side side"], num_iterations: int
) -> Float[Tensor, "num side side"]:
    """Return what turns each X into its orthogonal factor, given X X'."""
    factor = product = _newton_schulz_factor(grams)
    for _ in range(num_iterations - 1):
        grams = factor @ grams @ factor
        factor = _newton_schulz_factor(grams)
        product = factor @ product
    return product


def _newton_schulz_factor(
    grams: Float[Tensor, "num side side"],
) -> Float[Tensor, "num side side"]:
    a, b, c = _NEWTON_SCHULZ_COEFFICIENTS
    factor = torch.baddbmm(grams, grams, grams, beta=b, alpha=c)
    factor.diagonal(dim1=-2, dim2=-1).add_(a)
    return factor


class ScheduledOptimizer:
    """The optimisers of one model, stepped together along one schedule.

    Args:
        model: Its parameters named in `model.edge_parameters` (first and last layers) are left to
            AdamW, as are vectors.
        params: Optimiser and schedule.
        num_steps: Of the whole training.
    """

    def __init__(self, model: nn.Module, params: OptimizationParams, num_steps: int) -> None:
        self._model = model
        self._params = params
        self._num_steps = num_steps
        self._optimizers = list(_build_optimizers(model, params))
        self.num_steps_done = 0
        self.learning_rate = 0.0
        """AdamW's learning rate in the last step done."""

    def step(self, loss: Float[Tensor, ""]) -> None:
        """Make one step down the gradient of the loss."""
        self._model.zero_grad(set_to_none=True)
        loss.backward()
        factor = self._factor()
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
            optimizer.step()
        self.num_steps_done += 1
        self.learning_rate = self._params.learning_rate * factor

    def state_dict(self) -> dict[str, Any]:
        """Return the steps done and, by optimiser and parameter, what each keeps of the past."""
        return {
            "num_steps_done": self.num_steps_done,
            "learning_rate": self.learning_rate,
            "optimizers": {
                str(index): {
                    str(number): dict(optimizer.state[parameter])
                    for number, parameter in enumerate(_parameters(optimizer))
                }
                for index, optimizer in enumerate(self._optimizers)
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them back, in the layout that the parameters have."""
        self.num_steps_done = state["num_steps_done"]
        self.learning_rate = state["learning_rate"]
        for index, optimizer in enumerate(self._optimizers):
            kept = state["optimizers"][str(index)]
            for number, parameter in enumerate(_parameters(optimizer)):
                optimizer.state[parameter] = {
                    name: _like(parameter, tensor) for name, tensor in kept[str(number)].items()
                }

    def _factor(self) -> float:
        # The middle of the step: neither the first nor the last step is wasted on a rate of 0.
        progress = min((self.num_steps_done + 0.5) / self._num_steps, 1.0)
        return learning_rate_factor(self._params.schedule, progress, self._params.warmup_fraction)


def _build_optimizers(
    model: nn.Module, params: OptimizationParams
) -> Iterator[torch.optim.Optimizer]:
    edges = set(getattr(model, "edge_parameters", ()))
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim >= 2 and name not in edges]
    edge_matrices = [p for name, p in named if p.ndim >= 2 and name in edges]
    vectors = [p for _, p in named if p.ndim < 2]
    if params.optimizer == "adamw":
        edge_matrices, matrices = edge_matrices + matrices, []
    decayed = {"params": edge_matrices, "weight_decay": params.weight_decay}
    groups = [decayed, {"params": vectors, "weight_decay": 0.0}]
    yield _with_peak(
        AdamW(
            [group for group in groups if group["params"]],
            lr=params.learning_rate,
            betas=(0.9, 0.99),
            fused=True,
        )
    )
    if matrices:
        yield _with_peak(Muon(matrices, params.muon_learning_rate, params.weight_decay))


def _with_peak(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    for group in optimizer.param_groups:
        group["peak_lr"] = group["lr"]
    return optimizer


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """Copy what an optimiser keeps; a scalar, AdamW's count of steps, has no layout."""
    if tensor.ndim == 0:
        return tensor.to(parameter.device, copy=True)
    return torch.empty_like(parameter).copy_(tensor)
