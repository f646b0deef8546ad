"""Which device and dtype to compute in, and with how many threads."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from kernels import gpu
from serving_image.errors import StartupError
from serving_image.options import Device, DType, KVCacheDType

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_FP8_CAPABILITY = 89
"""Ada: the first GPUs that convert from and to fp8."""


def choose_device(requested: Device) -> torch.device:
    """The device to run on: a GPU if there is one, unless told otherwise.

    :raises StartupError: a GPU is asked for and torch sees none.
    """
    if requested == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if requested == "cuda":
        raise StartupError("No CUDA device can be used.", "Check nvidia-smi and the driver, or use --device cpu.")
    return torch.device("cpu")


def choose_dtype(requested: DType, stored: torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype to compute in.

    ``auto`` keeps what the checkpoint stores, where the device computes it well. A CPU without bfloat16 instructions
    emulates it at a fraction of float32's speed, and no CPU path gains from float16, so there they become float32,
    which holds both exactly.
    """
    if requested != "auto":
        return _DTYPES[requested]
    if stored not in _DTYPES.values():
        return torch.float32
    if device.type == "cpu" and not (stored == torch.bfloat16 and torch.cpu._is_avx512_bf16_supported()):
        return torch.float32
    if device.type == "cuda" and stored == torch.bfloat16 and not torch.cuda.is_bf16_supported():
        return torch.float16
    return stored


def choose_cache_dtype(requested: KVCacheDType, device: torch.device) -> torch.dtype | None:
    """The dtype of the key/value cache; None: that of the computation.

    :raises StartupError: fp8 is asked for where no kernel reads it.
    """
    if requested == "auto":
        return None
    probe = torch.empty(0, device=device)
    if not gpu.serves(probe):
        raise StartupError("--kv-cache-dtype fp8 is for GPUs.", "Leave it out on a CPU.")
    capability = gpu.device_of(probe).capability
    if capability < _FP8_CAPABILITY:
        raise StartupError(
            f"--kv-cache-dtype fp8 needs a GPU of compute capability 8.9 or more; this one has {capability / 10}.",
            "Leave it out.",
        )
    return torch.float8_e4m3fn


def available_cores() -> int:
    """Physical cores that this process may use: its affinity and its cgroup's CPU quota bound them."""
    allowed = os.sched_getaffinity(0)
    cores = {_siblings(cpu) for cpu in allowed}
    return max(1, min(len(cores), _cpu_quota() or len(cores)))


def _siblings(cpu: int) -> str:
    """The hardware threads that share this one's core, as the kernel writes them."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    return path.read_text() if path.exists() else str(cpu)


def _cpu_quota() -> int | None:
    """Whole CPUs that the cgroup grants; None if unlimited."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(1, int(quota) // int(period))
