"""Layer normalisation by torch's own operator."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, epsilon: float) -> Tensor:
    """See :func:`kernels.layer_norm.layer_norm`."""
    if weight.dtype != x.dtype:
        shift = None if bias is None else bias.float()
        return functional.layer_norm(x.float(), (x.shape[-1],), weight.float(), shift, epsilon).to(x.dtype)
    return functional.layer_norm(x, (x.shape[-1],), weight, bias, epsilon)
