"""RMS normalisation, step by step in float32."""

from __future__ import annotations

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, epsilon: float, residual: Tensor | None = None) -> Tensor:
    """See :func:`kernels.rms_norm.rms_norm`."""
    if residual is not None:
        residual += x
        x = residual
    wide = x.float()
    normalised = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + epsilon)
    return (weight.float() * normalised).to(x.dtype)
