"""Layer normalisation by its definition, in float32."""

from __future__ import annotations

import torch
from torch import Tensor


def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor | None, epsilon: float, residual: Tensor | None = None
) -> Tensor:
    """See :func:`kernels.layer_norm.layer_norm`."""
    if residual is not None:
        residual += x
        x = residual
    wide = x.float()
    centred = wide - wide.mean(dim=-1, keepdim=True)
    normalised = centred / torch.sqrt(centred.square().mean(dim=-1, keepdim=True) + epsilon) * weight.float()
    if bias is not None:
        normalised = normalised + bias.float()
    return normalised.to(x.dtype)
