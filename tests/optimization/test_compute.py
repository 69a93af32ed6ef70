import os

import pytest
import torch
from pydantic import ValidationError

from diptych.optimization.compute import (
    Compute,
    ComputeError,
    ComputeParams,
    has_fast_bfloat16,
    set_up_compute,
)

CPU = torch.device("cpu")
needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


def params(**changes: object) -> ComputeParams:
    values = {"device": "cpu", "precision": "float32", "num_threads": 1}
    return ComputeParams.model_validate({**values, **changes})


def processor(monkeypatch: pytest.MonkeyPatch, **capabilities: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)


def test_the_device_and_the_precision_asked_for():
    assert set_up_compute(params()) == Compute(CPU, torch.float32)


def test_the_number_of_threads():
    set_up_compute(params(num_threads=2))
    assert torch.get_num_threads() == 2
    set_up_compute(params(num_threads="auto"))
    assert 1 <= torch.get_num_threads() <= (os.cpu_count() or 1)


@pytest.mark.parametrize("number", [0, -1, 1.0, True, "many", None, [1]])
def test_a_number_of_threads_is_auto_or_at_least_one(number):
    message = "must be 'auto' or a whole number >= 1"
    with pytest.raises(ValidationError, match=message):
        params(num_threads=number)


@needs_no_gpu
def test_a_device_that_is_not_there_is_refused():
    message = r"^compute.device: must be on this machine: .*cpu \(got 'cuda'\)$"
    with pytest.raises(ComputeError, match=message):
        set_up_compute(params(device="cuda"))


def test_auto_takes_bfloat16_only_where_the_processor_has_it(monkeypatch):
    processor(monkeypatch, avx2=True)
    assert not has_fast_bfloat16(CPU)
    assert set_up_compute(params(precision="auto")).dtype == torch.float32
    with pytest.raises(ComputeError, match=r"^compute.precision: must be float32 .*'bfloat16'\)$"):
        set_up_compute(params(precision="bfloat16"))
    processor(monkeypatch, avx512_bf16=True)
    assert set_up_compute(params(precision="auto")).dtype == torch.bfloat16
    assert set_up_compute(params(precision="bfloat16")).dtype == torch.bfloat16
    assert set_up_compute(params(precision="float32")).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_taken_in_the_precision(dtype):
    matrix = torch.eye(2)
    with Compute(CPU, dtype).autocast():
        assert (matrix @ matrix).dtype == dtype
