import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from diptych.optimization.optimizers import AdamW, Muon, ScheduledOptimizer, orthogonalize
from diptych.optimization.params import OptimizationParams

SHAPES = [(6, 6), (4, 9), (9, 4), (1, 5), (5, 1)]


def params(**changes: object) -> OptimizationParams:
    values = {
        "num_epochs": 1,
        "batch_size": 1,
        "optimizer": "muon",
        "learning_rate": 0.5,
        "muon_learning_rate": 0.25,
        "weight_decay": 0.1,
        "schedule": "constant",
        "warmup_fraction": 0.0,
        "seed": 0,
    }
    return OptimizationParams.model_validate({**values, **changes})


def well_conditioned(shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """A matrix with known orthogonal factor: its singular values lie between 0.2 and 1."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return left * torch.linspace(1, 0.2, len(values)) @ right, left @ right


class Net(nn.Module):
    """One parameter of every kind: first layer, hidden kernel and matrix, vectors, last layer."""

    edge_parameters = ("first.weight", "last.weight")

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(1, 3, 2)
        self.kernel = nn.Conv2d(3, 4, 2)
        self.matrix = nn.Linear(4, 5)
        self.last = nn.Linear(5, 2)

    def zero_loss(self) -> Tensor:
        """A loss of gradient 0, so that weight decay is all that moves."""
        return torch.stack([(0 * p).sum() for p in self.parameters()]).sum()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_orthogonalizing_keeps_singular_vectors_and_levels_singular_values(shape, scale):
    matrix, orthogonal = well_conditioned(shape)
    [result] = orthogonalize([scale * matrix], num_iterations=5)
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.65
    assert values.max() < 1.2
    # The rest of the way to U V' is in the singular values alone.
    left, _, right = torch.linalg.svd(result, full_matrices=False)
    torch.testing.assert_close(left @ right, orthogonal, atol=0.05, rtol=0)


def test_orthogonalizing_zero_gives_zero():
    [result] = orthogonalize([torch.zeros(3, 4)], 5)
    assert torch.equal(result, torch.zeros(3, 4))


def test_orthogonalizing_several_matrices_gives_what_each_gives_alone():
    draws = torch.Generator().manual_seed(0)
    shapes = [(3, 5), (8, 4), (5, 3), (4, 4), (3, 3), (1, 7)]
    matrices = [torch.randn(shape, generator=draws) for shape in shapes]
    together = orthogonalize(matrices, num_iterations=5)
    alone = [orthogonalize([matrix], num_iterations=5)[0] for matrix in matrices]
    assert [result.shape for result in together] == [matrix.shape for matrix in matrices]
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("shape", [(8, 8), (4, 16), (16, 4), (4, 2, 3, 3)])
def test_the_size_of_muons_first_step_depends_on_the_shape_alone(shape):
    parameter = nn.Parameter(torch.zeros(shape))
    parameter.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    Muon([parameter], lr=0.1, weight_decay=0.0).step()
    step = parameter.detach().flatten(1)
    num_rows, num_columns = step.shape
    expected = 0.1 * max(1, num_rows / num_columns) ** 0.5
    values = torch.linalg.svdvals(step) / expected
    assert values.max() < 1.2
    assert values.square().mean() ** 0.5 == pytest.approx(0.9, abs=0.2)
    assert (step * parameter.grad.flatten(1)).sum() < 0, "down the gradient"


def test_muon_remembers_gradients_with_nesterovs_momentum():
    """Means 0.05 g and 0.0475 g + 0.05 h; the step's direction is 0.05 h + 0.95 of the mean."""
    first, second = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    parameter = nn.Parameter(torch.zeros(4, 6))
    optimizer = Muon([parameter], lr=0.1, weight_decay=0.0)
    for gradient in (first, second):
        before = parameter.detach().clone()
        parameter.grad = gradient.clone()
        optimizer.step()
    [expected] = orthogonalize([0.045125 * first + 0.0975 * second], num_iterations=5)
    torch.testing.assert_close(parameter.detach() - before, -0.1 * expected, atol=3e-3, rtol=0)


def test_muon_decays_by_learning_rate_times_decay():
    parameter = nn.Parameter(torch.ones(2, 3))
    parameter.grad = torch.zeros(2, 3)
    Muon([parameter], lr=0.5, weight_decay=0.1).step()
    torch.testing.assert_close(parameter.detach(), torch.full((2, 3), 0.95))


def test_muon_leaves_a_parameter_without_a_gradient():
    parameter = nn.Parameter(torch.ones(2, 3))
    Muon([parameter], lr=0.5, weight_decay=0.1).step()
    assert torch.equal(parameter.detach(), torch.ones(2, 3))


def test_adamw_is_torchs_own():
    nets = Net(), Net()
    optimizers = [
        kind(net.parameters(), lr=0.1, betas=(0.9, 0.99), weight_decay=0.1, fused=True)
        for kind, net in zip((AdamW, torch.optim.AdamW), nets, strict=True)
    ]
    for _ in range(3):
        for net, optimizer in zip(nets, optimizers, strict=True):
            net.zero_grad()
            torch.stack([p.square().sum() for p in net.parameters()]).sum().backward()
            optimizer.step()
    for own, torchs in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(own, torchs)


@pytest.mark.parametrize("optimizer", ["Muon", "AdamW"])
def test_no_step_imports_the_compiler(optimizer):
    """It takes longer than the smallest trainings."""
    program = f"""
import sys, torch
from diptych.optimization.optimizers import {optimizer}
weights = torch.nn.Parameter(torch.eye(2))
optimizer = {optimizer}([weights], lr=0.1, weight_decay=0.0)
weights.sum().backward()
optimizer.step()
assert not torch.equal(weights, torch.eye(2))
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(("optimizer", "hidden_rate"), [("muon", 0.25), ("adamw", 0.5)])
def test_matrices_decay_at_their_optimizers_rate_and_vectors_not_at_all(optimizer, hidden_rate):
    net = Net()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    ScheduledOptimizer(net, params(optimizer=optimizer), num_steps=1).step(net.zero_loss())
    rates = {"first": 0.5, "kernel": hidden_rate, "matrix": hidden_rate, "last": 0.5}
    for name, parameter in net.named_parameters():
        layer, kind = name.split(".")
        kept = 1 - 0.1 * rates[layer] if kind == "weight" else 1.0
        torch.testing.assert_close(parameter.detach(), kept * before[name])


def test_the_rate_follows_the_schedule_at_the_middle_of_each_step():
    net = Net()
    chosen = params(schedule="one_cycle", warmup_fraction=0.5)
    optimizer = ScheduledOptimizer(net, chosen, num_steps=4)
    rates = []
    for _ in range(4):
        before = net.first.weight.detach().clone()
        optimizer.step(net.zero_loss())
        rates.append(optimizer.learning_rate)
        torch.testing.assert_close(net.first.weight.detach(), before * (1 - 0.1 * rates[-1]))
    assert rates == pytest.approx([0.125, 0.375, 0.375, 0.125])
    assert optimizer.num_steps_done == 4


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_loss_falls(optimizer):
    net = Net()
    images = torch.randn(8, 1, 3, 3, generator=torch.Generator().manual_seed(1))

    def loss() -> Tensor:
        hidden = net.kernel(net.first(images)).flatten(1)
        return (net.last(net.matrix(hidden)) - 1).square().mean()

    chosen = params(optimizer=optimizer, learning_rate=0.02, muon_learning_rate=0.02)
    scheduled = ScheduledOptimizer(net, chosen, num_steps=40)
    first = loss().item()
    for _ in range(40):
        scheduled.step(loss())
    assert loss().item() < 0.1 * first
