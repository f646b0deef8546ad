"""A linear layer accumulated in float32."""

from __future__ import annotations

from torch import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """See :func:`kernels.linear.linear`; ``weight`` is the plain ``[out_features, in_features]`` tensor."""
    product = x.float() @ weight.float().T
    if bias is not None:
        product += bias.float()
    return product.to(x.dtype)
