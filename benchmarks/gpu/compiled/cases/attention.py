"""Paged attention: every dtype and size of head, decoding with and without splits, and chunks of prompts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from benchmarks.gpu.compiled.case import DTYPES, HOPPER, Case, Demand
from benchmarks.gpu.workloads.attention import Heads, attention
from kernels.attention import PLAIN, AttentionVariant

_HEAD_DIMS = (64, 80, 96, 112, 128, 192, 256)
_COMMON = (64, 128, 256)
_CPU = torch.device("cpu")
_CONTEXT = 512


def cases() -> Iterator[Case]:
    """The whole product of dtype and size, float16 in uncommon sizes for Hopper alone, as is the rest."""
    for head_dim in _HEAD_DIMS:
        for kind in ("bf16", "fp16", "fp8"):
            heads = _heads(kind, head_dim)
            for case in (_decode(f"{kind} d{head_dim}", heads, splits=8), _prefill(f"{kind} d{head_dim}", heads)):
                yield case if kind != "fp16" or head_dim in _COMMON else case._replace(capabilities=HOPPER)
    yield from (case._replace(capabilities=HOPPER) for case in _others())


def _others() -> Iterator[Case]:
    """Unsplit, other pages, groups and variants."""
    for head_dim in (64, 128, 256):
        yield _decode(f"bf16 d{head_dim} unsplit", _heads("bf16", head_dim), splits=1)
    yield _decode("fp8 d128 unsplit", _heads("fp8", 128), splits=1)
    for kind in ("bf16", "fp8"):
        for page in (16, 256):
            heads = replace(_heads(kind, 128), page=page)
            yield _decode(f"{kind} d128 page {page}", heads, splits=8)
            yield _prefill(f"{kind} d128 page {page}", heads)
    yield _decode("fp32 d128", _heads("fp32", 128), splits=8)
    yield _prefill("fp32 d128", _heads("fp32", 128))
    for name, count, kv_heads, head_dim in (("mha", 32, 32, 128), ("group 8", 64, 8, 128), ("mqa", 71, 1, 64)):
        heads = replace(_heads("bf16", head_dim), heads=count, kv_heads=kv_heads)
        yield _decode(f"bf16 d{head_dim} {name}", heads, splits=8)
        yield _prefill(f"bf16 d{head_dim} {name}", heads)
    for name, head_dim, variant in _variants():
        yield _decode(f"bf16 d{head_dim} {name}", _heads("bf16", head_dim), splits=8, variant=variant)
        yield _prefill(f"bf16 d{head_dim} {name}", _heads("bf16", head_dim), variant)


def _variants() -> Iterator[tuple[str, int, AttentionVariant]]:
    """Those of Mistral, Gemma 2, gpt-oss and BLOOM."""
    per_head = torch.empty(32)
    yield "window", 128, AttentionVariant(window=4096)
    yield "window softcap", 256, AttentionVariant(window=4096, softcap=50.0)
    yield "window sinks", 64, AttentionVariant(window=128, sinks=per_head)
    yield "alibi", 128, AttentionVariant(alibi_slopes=per_head)


def _heads(kind: str, head_dim: int) -> Heads:
    if kind == "fp8":
        return Heads(head_dim=head_dim, cache_dtype=DTYPES[kind])
    return Heads(head_dim=head_dim, dtype=DTYPES[kind])


def _decode(name: str, heads: Heads, splits: int, variant: AttentionVariant = PLAIN) -> Case:
    def call() -> object:
        pool = heads.pool(2 * _CONTEXT, _CPU)
        return attention(heads, [1, 1], [_CONTEXT, _CONTEXT], pool, splits=splits, variant=variant)()

    return Case("attention", f"decode {name}", call, {"decode_kernel": _demand("decode", heads)})


def _prefill(name: str, heads: Heads, variant: AttentionVariant = PLAIN) -> Case:
    def call() -> object:
        pool = heads.pool(_CONTEXT, _CPU)
        return attention(heads, [_CONTEXT // 2], [_CONTEXT], pool, variant=variant)()

    # Products of float32 in full precision are not for the matrix units.
    demand = _demand("prefill", heads)._replace(matrix=heads.dtype != torch.float32)
    return Case("attention", f"prefill {name}", call, {"prefill_kernel": demand})


def _demand(kernel: str, heads: Heads) -> Demand:
    return Demand(kernel, streamed=heads.row_bytes, least=80 if heads.cache_dtype is None else 89)
