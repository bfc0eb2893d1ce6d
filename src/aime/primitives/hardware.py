"""Device, precision and memory allocator of a run."""

from __future__ import annotations

import ctypes
import os
import platform
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch

from aime.errors import AimeError
from aime.primitives.ranks import ranks

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Hardware:
    """The device, and the type of matrix products and convolutions."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> AbstractContextManager[object]:
        """The context of the forward pass: autocast if `dtype` is bf16."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def synchronize(self) -> None:
        """Wait for the device, for time measurements."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def choose_device(device: Device) -> torch.device:
    """The requested device; `auto` is a CUDA GPU if there is one.

    Raises:
        AimeError: if CUDA is requested and not available.
    """
    found = torch.cuda.is_available()
    if device == "cuda" and not found:
        raise AimeError("device is cuda; expected a CUDA GPU and found none: take --device cpu, or see `aime doctor`")
    return torch.device("cuda" if found and device != "cpu" else "cpu")


def choose_hardware(device: Device = "auto", precision: Literal["auto", "fp32", "bf16"] = "auto") -> Hardware:
    """The requested device and precision; `auto` is bf16 if the hardware has it. Each rank uses its own GPU.

    Raises:
        AimeError: if CUDA is requested and not available, or there are fewer GPUs than processes.
    """
    chosen = choose_device(device)
    if precision == "auto":
        precision = "bf16" if has_bf16(chosen.type) else "fp32"
    if chosen.type == "cuda" and ranks() > 1:
        place, gpus = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if place >= gpus:
            raise AimeError(
                f"process {place + 1} of this machine found {gpus} GPUs; expected one for each process: lower "
                "--nproc-per-node or take --device cpu"
            )
        chosen = torch.device("cuda", place)
        torch.cuda.set_device(chosen)
    return Hardware(chosen, torch.bfloat16 if precision == "bf16" else torch.float32)


def has_bf16(device: str) -> bool:
    """Whether bf16 products run in hardware: Ampere or later, or a CPU with AVX512-BF16 or AMX."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and _cpu_flag()


def _cpu_flag() -> bool:
    # oneDNN also accepts CPUs that emulate bf16, where it is slower than fp32
    capability = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(capability()) if capability is not None else False


def keep_freed_memory() -> None:
    """Make glibc reuse large freed blocks instead of returning them to the kernel.

    Otherwise activations of tens of megabytes are mapped, zeroed and unmapped at each operation, which takes 40 % of a
    residual cell's time on a 2-core machine. Does nothing with other C libraries.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL("libc.so.6")
    m_mmap_max, m_trim_threshold = -4, -1
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, 2**31 - 1)
