"""Products of few rows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.gpu.workloads.tensors import random
from kernels.linear import EXACT

Call = Callable[[], Tensor]


def product(rows: int, columns: int, depth: int, dtype: torch.dtype, device: torch.device) -> Call:
    """``x @ weight.T`` in the layout that the engine multiplies with."""
    weight = EXACT.weight(random((columns, depth), dtype, device, 0.02))
    x = random((rows, depth), dtype, device)
    return lambda: weight.multiply(x)


def gated_product(rows: int, intermediate: int, depth: int, device: torch.device) -> Call:
    """``silu(gate) * up`` of the product with both."""
    weight = EXACT.gated(random((2 * intermediate, depth), torch.bfloat16, device, 0.02), has_bias=False)
    x = random((rows, depth), torch.bfloat16, device)
    return lambda: weight.multiply(x)
