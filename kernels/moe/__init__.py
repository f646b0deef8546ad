"""Mixtures of experts: routing, sorting by expert, and the experts' products."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import gpu
from kernels.moe import cpu, native, reference
from kernels.moe.activation import GEGLU_TANH, GPT_OSS, SWIGLU, GatedActivation
from kernels.moe.order import SortedTokens, max_blocks
from kernels.moe.router import Router, Routing, Scoring
from kernels.native.library import supports

__all__ = [
    "GEGLU_TANH",
    "GPT_OSS",
    "SWIGLU",
    "GatedActivation",
    "Router",
    "Routing",
    "Scoring",
    "SortedTokens",
    "experts_forward",
    "max_blocks",
    "route",
    "sort_tokens",
]


def route(logits: Tensor, router: Router, bias: Tensor | None = None) -> Routing:
    """Choose ``top_k`` experts for each token. Of equal scores the lowest index is chosen; NaN is the lowest score.

    :param logits: ``[tokens, experts]`` of any floating dtype, contiguous; scores are computed in float32.
    :param bias: ``[experts]``, added to the scores for the choice but not for the weights (DeepSeek-V3: Wang et al.
        2024, arXiv 2408.15664), or None.
    :raises ValueError: see :meth:`Router.check`; or there is a bias although sparsemixer knows none.
    """
    router.check(logits.shape[1])
    if router.scoring == "sparsemixer" and bias is not None:
        raise ValueError("sparsemixer has no selection bias")
    if gpu.serves(logits):
        from kernels.moe import triton as form

        return form.route(logits, router, bias)
    if supports(logits) and (bias is None or bias.dtype == torch.float32):
        return native.route(logits, router, bias)
    return reference.route(logits, router, bias)


def sort_tokens(experts: Tensor, num_experts: int, block_m: int) -> SortedTokens:
    """Sort choices by expert; those of one expert stay in order. The host waits for nothing.

    :param experts: ``[tokens, top_k]`` int32, each from 0 to ``num_experts - 1``, contiguous.
    :param block_m: rows of a block, a multiple of 16.
    """
    if gpu.serves(experts):
        from kernels.moe import triton as form

        return form.sort_tokens(experts, num_experts, block_m)
    return reference.sort_tokens(experts, num_experts, block_m)


def experts_forward(
    x: Tensor,
    gate_up: Tensor,
    down: Tensor,
    routing: Routing,
    activation: GatedActivation = SWIGLU,
    *,
    gate_up_bias: Tensor | None = None,
    down_bias: Tensor | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """``residual + Σ weight * (activation(x @ gate_up.T + gate_up_bias) @ down.T + down_bias)`` over a token's experts.

    Products are summed in float32, as are the ``top_k`` terms of a token, each rounded once before; always in the same
    order, so that the result depends on nothing but the inputs. Method: grouped products over tokens sorted by expert,
    as in Gale et al. 2022, arXiv 2211.15841.

    :param x: ``[tokens, hidden]``, contiguous.
    :param gate_up: ``[experts, 2 * intermediate, hidden]``, contiguous, of the dtype of ``x``; the gate's half first.
    :param down: ``[experts, hidden, intermediate]``, contiguous, of the dtype of ``x``.
    :param routing: for each token, different experts, each from 0 to ``experts - 1``; contiguous.
    :param gate_up_bias: ``[experts, 2 * intermediate]`` or None.
    :param down_bias: ``[experts, hidden]`` or None.
    :param residual: ``[tokens, hidden]``, contiguous, or None.
    :returns: ``[tokens, hidden]``.
    :raises ValueError: shapes or dtypes do not fit one another.
    """
    _check(x, gate_up, down, routing)
    terms = {"gate_up_bias": gate_up_bias, "down_bias": down_bias, "residual": residual}
    if gpu.serves(x):
        from kernels.moe import triton as form

        return form.experts_forward(x, gate_up, down, routing, activation, **terms)
    return cpu.experts_forward(x, gate_up, down, routing, activation, **terms)


def _check(x: Tensor, gate_up: Tensor, down: Tensor, routing: Routing) -> None:
    num_experts, hidden, intermediate = down.shape
    if gate_up.shape != (num_experts, 2 * intermediate, hidden) or x.shape[1] != hidden:
        raise ValueError(f"x {list(x.shape)}, gate_up {list(gate_up.shape)} and down {list(down.shape)} do not fit")
    if not x.dtype == gate_up.dtype == down.dtype:
        raise ValueError(f"x is {x.dtype}, gate_up {gate_up.dtype}, down {down.dtype}; they must be of one dtype")
    if routing.experts.shape != routing.weights.shape or routing.experts.shape[0] != x.shape[0]:
        raise ValueError(f"a routing {list(routing.experts.shape)} does not fit x {list(x.shape)}")
    if not all(part.is_contiguous() for part in (x, gate_up, down, *routing)):
        raise ValueError("all inputs must be contiguous")
