"""What the tables are tuned for: the shapes of Llama 3 8B, and for what it has not, of models that have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch

from benchmarks.gpu.workloads.attention import Heads, attention
from benchmarks.gpu.workloads.latent import latent, latent_pool
from benchmarks.gpu.workloads.linear import gated_product, product
from benchmarks.gpu.workloads.moe import Experts, mixture
from benchmarks.gpu.workloads.sampling import sampler
from benchmarks.gpu.workloads.streams import activation, embedding, layer, rms, rotation

Call = Callable[[], object]

_TOKENS = 8192
_HEAD_DIMS = (128, 64, 256, 80, 96, 112, 192)


class Workload(NamedTuple):
    """``prepare`` makes inputs on a device, the same ones for the same seed, and returns what is measured."""

    operation: str
    name: str
    prepare: Callable[[torch.device], Call]


def workloads() -> Iterator[Workload]:
    """All, those that matter most first."""
    yield from _attention(128)
    yield from _linear()
    yield from _streams()
    yield from _sampling()
    yield from _moe()
    for head_dim in _HEAD_DIMS[1:]:
        yield from _attention(head_dim)
    yield from _latent()


def _attention(head_dim: int) -> Iterator[Workload]:
    for kind, cache_dtype in (("bf16", None), ("fp8", torch.float8_e4m3fn)):
        heads = Heads(head_dim=head_dim, cache_dtype=cache_dtype)
        for requests, context in ((64, 4096), (1, 32_768)):
            name = f"decode {kind} d{head_dim} {requests} × {context}"
            yield Workload("attention", name, partial(_attend, heads, [1] * requests, context))
        yield Workload(
            "attention", f"prefill {kind} d{head_dim} {_TOKENS}", partial(_attend, heads, [_TOKENS], _TOKENS)
        )


def _attend(heads: Heads, queries: list[int], context: int, device: torch.device) -> Call:
    pool = heads.pool(len(queries) * context, device)
    return attention(heads, queries, [context] * len(queries), pool)


def _linear() -> Iterator[Workload]:
    for rows in (1, 4, 16):
        for columns, depth in ((6144, 4096), (4096, 14_336), (128_256, 4096)):
            name = f"{rows} × {depth} → {columns}"
            yield Workload("linear", name, partial(product, rows, columns, depth, torch.bfloat16))
        yield Workload("linear", f"{rows} × 4096 → 2 · 14336", partial(gated_product, rows, 14_336, 4096))


def _streams() -> Iterator[Workload]:
    for hidden in (4096, 2048, 8192, 1024, 16_384, 512, 256):
        yield Workload("rms_norm", f"{hidden}", partial(rms, _TOKENS, hidden))
        yield Workload("layer_norm", f"{hidden}", partial(layer, _TOKENS, hidden))
    for head_dim in (128, 64, 256):
        yield Workload("rotate_and_store", f"d{head_dim}", partial(rotation, _TOKENS, Heads(head_dim=head_dim)))
    yield Workload("activation", "14336", partial(activation, _TOKENS, 14_336))
    yield Workload("embedding", "4096", partial(embedding, _TOKENS, 4096))


def _sampling() -> Iterator[Workload]:
    for requests in (256, 1):
        yield Workload("sampling", f"{requests} × 128256", partial(_sample, requests))


def _sample(requests: int, device: torch.device) -> Call:
    call = sampler(requests, 128_256, device, top_k=50, top_p=0.9)

    def once() -> object:
        return call.sample(), *call.logprobs(5)

    return once


def _moe() -> Iterator[Workload]:
    for tokens in (1, 16, 256, _TOKENS):
        yield Workload("moe", f"qwen3 30b {tokens}", partial(_mixture, Experts(), tokens))
    mixtral = replace(Experts(), hidden=4096, intermediate=14_336, experts=8, top_k=2)
    for tokens in (32, 128):
        yield Workload("moe", f"mixtral 8x7b {tokens}", partial(_mixture, mixtral, tokens))


def _mixture(experts: Experts, tokens: int, device: torch.device) -> Call:
    return mixture(experts, tokens, experts.layer(device))


def _latent() -> Iterator[Workload]:
    for heads in (128, 16):
        for requests, context in ((64, 4096), (1, 32_768)):
            name = f"decode {heads} heads {requests} × {context}"
            yield Workload("latent_attention", name, partial(_attend_latent, heads, [1] * requests, context))
        yield Workload("latent_attention", f"prefill {heads} heads", partial(_attend_latent, heads, [2048], 2048))


def _attend_latent(heads: int, queries: list[int], context: int, device: torch.device) -> Call:
    pool = latent_pool(len(queries) * context, 32, torch.bfloat16, device)
    return latent(heads, queries, [context] * len(queries), pool, torch.bfloat16)
