"""What the device itself reaches: the bars that figures are held against."""

from __future__ import annotations

import torch

from benchmarks.gpu.results import Ceilings
from benchmarks.gpu.timing import CudaTimer

_COPIED = 2**32
_SIZE = 8192


def measure() -> Ceilings:
    """Copy 4 GiB within the device, and multiply two 8192 × 8192 bfloat16 matrices of random values."""
    timer = CudaTimer(seconds=0.5)
    return Ceilings(_copy(timer), _matmul(timer))


def _copy(timer: CudaTimer) -> float:
    source = torch.randn(_COPIED // 4, device="cuda")
    target = torch.empty_like(source)
    return 2 * _COPIED / timer.measure(lambda: target.copy_(source)).median


def _matmul(timer: CudaTimer) -> float:
    a, b = (torch.randn(_SIZE, _SIZE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    product = torch.empty_like(a)
    return 2 * _SIZE**3 / timer.measure(lambda: torch.mm(a, b, out=product)).median
