"""Mixtures of experts: every size of block, routing rules, sorting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from benchmarks.gpu.compiled.case import DTYPES, HOPPER, Case, Demand
from benchmarks.gpu.workloads.moe import Experts, mixture
from kernels.moe import GEGLU_TANH, SWIGLU, GatedActivation, Router, experts_forward, route

_CPU = torch.device("cpu")
_SIZES = Experts(experts=8, top_k=2)


def cases() -> Iterator[Case]:
    """Blocks from 16 rows, for few tokens, to 128."""
    for rows in (16, 32, 64, 128):
        # So many tokens give each expert as many rows as a block has.
        yield _experts(f"bf16 m{rows}", _SIZES, rows * _SIZES.experts // _SIZES.top_k, rows)
    yield _experts("bf16 one token", _SIZES, 1, 16)
    yield _experts("fp16 m128", replace(_SIZES, dtype=DTYPES["fp16"]), 512, 128)
    yield _experts("fp32 m32", replace(_SIZES, dtype=DTYPES["fp32"]), 512, 32)._replace(capabilities=HOPPER)
    for rows in (16, 128):
        yield _experts(f"bf16 m{rows} gelu_tanh", _SIZES, rows * 4, rows, GEGLU_TANH)._replace(capabilities=HOPPER)
    yield _route("route softmax", 128, Router(8, renormalise=True))
    yield _route("route groups", 256, Router(8, "sigmoid", True, groups=8, top_groups=4, group_best=2))
    yield _route("route sparsemixer", 16, Router(2, "sparsemixer", jitter=0.01))._replace(capabilities=HOPPER)


def _experts(name: str, experts: Experts, tokens: int, rows: int, activation: GatedActivation = SWIGLU) -> Case:
    def call() -> object:
        layer = mixture(experts, tokens, experts.layer(_CPU))
        return experts_forward(layer.x, layer.gate_up, layer.down, layer.routing, activation)

    size = experts.dtype.itemsize
    # The tensor cores' own instructions take 64 rows at least; float32 in full precision is not for them.
    matrix = rows >= 64 and size == 2
    demands = {
        "_gate_up": Demand("gate_up", ("block_n", "block_k"), 2 * size, matrix),
        "_down": Demand("down", ("block_n", "block_k"), size, matrix),
    }
    return Case("moe", name, call, demands)


def _route(name: str, experts: int, router: Router) -> Case:
    bias = torch.empty(experts) if router.scoring == "sigmoid" else None
    return Case("moe", name, lambda: route(torch.empty(64, experts, dtype=torch.bfloat16), router, bias))
