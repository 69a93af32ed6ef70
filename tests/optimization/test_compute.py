import os
import platform
import subprocess
import sys

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
    torch.set_num_threads(2)
    set_up_compute(params(num_threads=1))
    assert torch.get_num_threads() == 1
    set_up_compute(params(num_threads="auto"))
    assert 1 <= torch.get_num_threads() <= (os.cpu_count() or 1)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_that_was_freed_is_used_again_without_new_pages():
    """In a process of its own, for the allocator is the whole process's."""
    program = """if True:
        import resource, torch
        from diptych.optimization.compute import ComputeParams, set_up_compute

        def faults_of(num_repeats):
            start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(num_repeats):
                torch.zeros(2**24).add_(1)
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start

        before = faults_of(20)
        set_up_compute(ComputeParams(device="cpu", precision="float32", num_threads=1))
        faults_of(20)
        print(before, faults_of(20))
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    before, after = map(int, done.stdout.split())
    # glibc itself reuses blocks of up to 32 MiB; these are of 64. The heap grows at the first few,
    # which may not fit, aligned, where the last one was.
    assert after < before / 4, "every allocation has fresh pages without reuse"


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
