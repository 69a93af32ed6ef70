"""What a training step makes the host wait for."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from diptych.cnn.model import build_cnn
from diptych.cnn.train import train_cnn
from diptych.vae.model import build_vae
from diptych.vae.train import train_vae

WAITING = {
    torch.ops.aten._local_scalar_dense.default,  # item(), float(), if tensor:
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.unique_dim.default,
    torch.ops.aten._unique2.default,
}


INDEXING = {  # by a mask takes as many values as the mask says
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
    torch.ops.aten._index_put_impl_.default,
}


class CountedWaits(TorchDispatchMode):
    """Counts the operations that no accelerator can do without the host waiting for the result."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        self.num += func in WAITING or (func in INDEXING and _has_mask(args[1]))
        return func(*args, **(kwargs or {}))


def _has_mask(indices: Sequence[Tensor | None]) -> bool:
    return any(one is not None and one.dtype in (torch.bool, torch.uint8) for one in indices)


@pytest.fixture
def train(request, cnn_params, vae_params, striped, cpu) -> Callable[[int], None]:
    """Training one epoch of so many steps of 6 images: of a classifier or of an autoencoder."""

    def classifier(num_steps: int) -> None:
        params, images = cnn_params(num_epochs=1, batch_size=6), striped(6 * num_steps)
        _, *shape = images.images.shape
        model = build_cnn(params, tuple(shape), 3, [0.2], [0.3])
        train_cnn(model, images, striped(6, seed=1), params, cpu, lambda _: None)

    def autoencoder(num_steps: int) -> None:
        params, images = vae_params(num_epochs=1, batch_size=6), striped(6 * num_steps)
        _, *shape = images.images.shape
        model = build_vae(params, tuple(shape))
        train_vae(model, images, striped(6, seed=1), params, cpu, lambda _: None)

    return {"cnn": classifier, "vae": autoencoder}[request.param]


def waits(work: Callable[[], object]) -> int:
    with CountedWaits() as counted:
        work()
    return counted.num


def test_reading_a_value_or_a_number_of_results_is_a_wait():
    values = torch.tensor([1.0, 0.0])
    assert waits(lambda: values.sum()) == 0
    assert waits(lambda: values.sum().item()) == 1
    assert waits(lambda: values[values > 0]) == 1
    assert waits(lambda: values[torch.tensor([1, 0])]) == 0


@pytest.mark.parametrize("train", ["cnn", "vae"], indirect=True)
def test_a_step_reads_its_loss_on_a_cpu_and_nothing_else(train):
    """There it is checked at once, for nothing; elsewhere once an epoch."""
    assert waits(lambda: train(7)) - waits(lambda: train(3)) == 4
