"""Routing by the compiled kernels: one call, each token on its own."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.moe.router import Router, Routing, Scoring
from kernels.native import library

_SCORINGS: dict[Scoring, int] = {"softmax": 0, "sigmoid": 1, "sparsemixer": 2}


def route(logits: Tensor, router: Router, bias: Tensor | None) -> Routing:
    """See :func:`kernels.moe.route`; the bias is float32."""
    tokens, num_experts = logits.shape
    weights = library.result((tokens, router.top_k), torch.float32)
    experts = library.result((tokens, router.top_k), torch.int32)
    library.function("route", logits.dtype)(
        logits.data_ptr(),
        tokens,
        num_experts,
        None if bias is None else bias.data_ptr(),
        router.top_k,
        _SCORINGS[router.scoring],
        int(router.renormalise),
        router.groups,
        router.top_groups,
        router.group_best,
        float(router.scaling),
        float(router.jitter),
        weights.data_ptr(),
        experts.data_ptr(),
    )
    return Routing(weights, experts)
