"""The experts' products by torch, for CPUs that the compiled kernels do not serve."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kernels.moe.activation import GatedActivation
from kernels.moe.reference import activate
from kernels.moe.router import Routing


def experts_forward(
    x: Tensor,
    gate_up: Tensor,
    down: Tensor,
    routing: Routing,
    activation: GatedActivation,
    *,
    gate_up_bias: Tensor | None,
    down_bias: Tensor | None,
    residual: Tensor | None,
) -> Tensor:
    """See :func:`kernels.moe.experts_forward`; a product for each expert that is used, in the dtype of ``x``."""
    tokens, top_k = routing.experts.shape
    terms = x.new_zeros((tokens, top_k, x.shape[1]), dtype=torch.float32)
    for expert in sorted(set(routing.experts.flatten().tolist())):
        token, slot = (routing.experts == expert).nonzero(as_tuple=True)
        hidden = functional.linear(x[token], gate_up[expert], None if gate_up_bias is None else gate_up_bias[expert])
        gated = activate(hidden.float(), activation).to(x.dtype)
        product = functional.linear(gated, down[expert], None if down_bias is None else down_bias[expert])
        terms[token, slot] = product.float() * routing.weights[token, slot, None]
    out = terms.sum(1)
    return (out if residual is None else out.add_(residual)).to(x.dtype)
