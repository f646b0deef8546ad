"""Mixtures of experts as they are defined; the routing serves CPUs too."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.activation.reference import share
from kernels.moe.activation import GatedActivation
from kernels.moe.order import SortedTokens, max_blocks
from kernels.moe.router import Router, Routing


def route(logits: Tensor, router: Router, bias: Tensor | None = None) -> Routing:
    """See :func:`kernels.moe.route`."""
    logits = logits.float()
    logits = torch.where(logits.isnan(), -torch.inf, logits)
    weights, experts = _sparsemixer(logits, router) if router.scoring == "sparsemixer" else _best(logits, router, bias)
    if router.renormalise:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
    return Routing(weights * router.scaling, experts.int())


def _best(logits: Tensor, router: Router, bias: Tensor | None) -> Routing:
    scores = logits.softmax(-1) if router.scoring == "softmax" else logits.sigmoid()
    # Both scores grow with the logit, but rounding makes equal what is not.
    ranked = logits if bias is None and router.group_best == 1 else scores
    if bias is not None:
        ranked = ranked + bias.float()
    experts = _first(ranked, router.top_k, allowed=_in_best_groups(ranked, router))
    return Routing(scores.gather(1, experts), experts)


def _in_best_groups(ranked: Tensor, router: Router) -> Tensor:
    """Which experts may be chosen, ``[tokens, experts]`` bool."""
    grouped = ranked.view(-1, router.groups, ranked.shape[1] // router.groups)
    worth = grouped.sort(dim=-1, descending=True).values[..., : router.group_best].sum(-1)
    best = _first(worth, router.top_groups, allowed=torch.ones_like(worth, dtype=torch.bool))
    allowed = torch.zeros_like(worth, dtype=torch.bool).scatter_(1, best, True)
    return allowed[..., None].expand_as(grouped).flatten(1)


def _first(ranked: Tensor, count: int, allowed: Tensor) -> Tensor:
    """The best of each row, of equal ones the first; those that are not allowed come after all that are."""
    by_rank = ranked.sort(dim=-1, descending=True, stable=True).indices
    return by_rank.gather(1, (~allowed).gather(1, by_rank).byte().sort(dim=-1, stable=True).indices)[:, :count]


def _sparsemixer(logits: Tensor, router: Router) -> Routing:
    chosen, weights = logits.new_empty((logits.shape[0], 0), dtype=torch.int64), []
    for _ in range(router.top_k):
        allowed = torch.ones_like(logits, dtype=torch.bool).scatter_(1, chosen, False)
        left = torch.where(allowed, logits, -torch.inf)
        expert = _first(left, 1, allowed)
        best = left.gather(1, expert)
        far = (best - left) / torch.maximum(logits.abs(), best) > 2 * router.jitter
        weights.append(1 / torch.where(far, 0.0, (left - best).exp()).sum(-1, keepdim=True))
        chosen = torch.cat((chosen, expert), 1)
    return Routing(torch.cat(weights, 1), chosen)


def sort_tokens(experts: Tensor, num_experts: int, block_m: int) -> SortedTokens:
    """See :func:`kernels.moe.sort_tokens`."""
    chosen = experts.flatten().long()
    blocks = max_blocks(chosen.numel(), num_experts, block_m)
    order = torch.full((blocks * block_m,), chosen.numel(), dtype=torch.int32)
    block_experts = torch.full((blocks,), -1, dtype=torch.int32)
    block = 0
    for expert in range(num_experts):
        choices = (chosen == expert).nonzero()[:, 0]
        used = -(-choices.numel() // block_m)
        order[block * block_m :][: choices.numel()] = choices
        block_experts[block : block + used] = expert
        block += used
    return SortedTokens(order.to(experts.device), block_experts.to(experts.device))


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
    """See :func:`kernels.moe.experts_forward`; every product in float32."""
    out = torch.zeros(x.shape, dtype=torch.float32, device=x.device) if residual is None else residual.float()
    for expert in range(down.shape[0]):
        token, slot = (routing.experts == expert).nonzero(as_tuple=True)
        if token.numel() == 0:
            continue
        hidden = x[token].float() @ gate_up[expert].float().T
        if gate_up_bias is not None:
            hidden += gate_up_bias[expert].float()
        product = activate(hidden, activation) @ down[expert].float().T
        if down_bias is not None:
            product += down_bias[expert].float()
        out = out.index_add(0, token, product * routing.weights[token, slot, None])
    return out.to(x.dtype)


def activate(gate_up: Tensor, activation: GatedActivation) -> Tensor:
    """See :class:`kernels.moe.GatedActivation`; ``gate_up`` is ``[tokens, 2 * intermediate]``."""
    gate, up = gate_up.chunk(2, dim=-1)
    gate, up = gate.clamp(max=activation.limit), up.clamp(-activation.limit, activation.limit)
    return gate * share(activation.alpha * gate, activation.kind) * (up + activation.offset)
