"""RMS normalisation by torch's own operator: fewer dispatches than the reference, which is what counts at one token."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """See :func:`kernels.rms_norm.rms_norm`."""
    if weight.dtype != x.dtype:
        return functional.rms_norm(x.float(), (x.shape[-1],), weight.float(), epsilon).to(x.dtype)
    return functional.rms_norm(x, (x.shape[-1],), weight, epsilon)
