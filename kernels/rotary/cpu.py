"""Rotary embedding in four in-place operations, without temporaries or a concatenation."""

from __future__ import annotations

import torch
from torch import Tensor


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """See :func:`kernels.rotary.apply_rotary`."""
    output = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    first, second = x.chunk(2, dim=-1)
    rotated_first, rotated_second = output.chunk(2, dim=-1)
    cos, sin = cos[:, None, :], sin[:, None, :]
    torch.mul(first, cos, out=rotated_first).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=rotated_second).addcmul_(first, sin)
    return output
