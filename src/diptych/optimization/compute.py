"""Where the arithmetic happens: device, precision and threads."""

import contextlib
import ctypes
import os
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator

from diptych.errors import UserError
from diptych.params import Params

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h


class ComputeError(UserError):
    """The device or precision asked for is not on this machine."""


def _checked_num_threads(value: Any) -> Any:
    if value != "auto" and not (type(value) is int and value >= 1):
        raise ValueError("must be 'auto' or a whole number >= 1")
    return value


class ComputeParams(Params):
    """Where to compute, as params.yaml says it."""

    device: Literal["auto", "cuda", "mps", "cpu"]
    """`auto`: the first of cuda, mps and cpu that is there."""

    precision: Literal["auto", "float32", "bfloat16"]
    """Of matrix products and convolutions; `auto`: bfloat16 where the processor has it."""

    # A union's own messages are about its members, not about the value.
    num_threads: Annotated[Literal["auto"] | int, BeforeValidator(_checked_num_threads)]
    """CPU threads; `auto`: all cores that this process may use."""


@dataclass(frozen=True, slots=True)
class Compute:
    """A resolved device and precision.

    Attributes:
        device: Where tensors live.
        dtype: Of matrix products and convolutions: float32 or bfloat16.
    """

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """Return the context in which forward passes run."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout that this device's convolutions are fastest in."""
        return torch.contiguous_format if self.device.type == "mps" else torch.channels_last


def set_up_compute(params: ComputeParams) -> Compute:
    """Choose the device and precision and set the number of threads of this process.

    Raises:
        ComputeError: when the device or precision asked for is not there.
    """
    torch.set_num_threads(_choose_num_threads(params.num_threads))
    _keep_freed_memory()
    device = _choose_device(params.device)
    if device.type == "cuda":
        _prefer_deterministic_kernels()
    return Compute(device, _choose_dtype(params.precision, device))


def _choose_num_threads(num_threads: Literal["auto"] | int) -> int:
    available = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        available = len(os.sched_getaffinity(0))
    if num_threads == "auto":
        return available
    if num_threads > available:
        raise ComputeError(
            f"compute.num_threads: must be <= {available} on this machine (got {num_threads})"
        )
    return num_threads


def _keep_freed_memory() -> None:
    """Let glibc reuse what was freed: fresh pages for activations slow each step down."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, -1)


def _prefer_deterministic_kernels() -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)


def _choose_device(name: str) -> torch.device:
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(candidate for candidate, there in available.items() if there)
    if not available[name]:
        there = ", ".join(candidate for candidate, there in available.items() if there)
        raise ComputeError(f"compute.device: must be on this machine: {there} (got {name!r})")
    return torch.device(name)


def _choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    supported = has_fast_bfloat16(device)
    if precision == "bfloat16" and not supported:
        raise ComputeError(
            f"compute.precision: must be float32 on this machine's {device.type} (got 'bfloat16')"
        )
    return torch.bfloat16 if precision != "float32" and supported else torch.float32


def has_fast_bfloat16(device: torch.device) -> bool:
    """Tell whether the device multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # oneDNN emulates bfloat16 on other processors, slower than float32.
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False
