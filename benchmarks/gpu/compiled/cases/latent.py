"""Latent attention: decoding with splits and without, chunks of prompts, and what fills the cache."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.gpu.compiled.case import DTYPES, HOPPER, Case, Demand
from benchmarks.gpu.workloads.latent import LATENT, ROPE, latent, latent_pool
from kernels.latent_attention import LatentCache, store_latent

_CPU = torch.device("cpu")
_CONTEXT, _PAGE = 512, 32


def cases() -> Iterator[Case]:
    """128 heads of DeepSeek V3 and the 16 of V2 Lite."""
    for kind in ("bf16", "fp16", "fp8"):
        yield _attend(f"decode {kind}", kind, 128, [1, 1], 8)
        yield _attend(f"prefill {kind}", kind, 128, [_CONTEXT // 2], None)
    for name, queries, splits in (("decode", [1, 1], 8), ("decode unsplit", [1, 1], 1), ("prefill", [256], None)):
        yield _attend(f"{name} bf16 16 heads", "bf16", 16, queries, splits)._replace(capabilities=HOPPER)
    yield Case("latent_attention", "store bf16", partial(_store, "bf16"))
    yield Case("latent_attention", "store fp8", partial(_store, "fp8"), capabilities=(90, 100))


def _attend(name: str, kind: str, heads: int, queries: list[int], splits: int | None) -> Case:
    dtype = torch.bfloat16 if kind == "fp8" else DTYPES[kind]

    def call() -> object:
        contexts = [_CONTEXT] * len(queries)
        return latent(heads, queries, contexts, _pool(kind, sum(contexts)), dtype, splits=splits)()

    demand = Demand("attend", streamed=LATENT * DTYPES[kind].itemsize)
    return Case("latent_attention", name, call, {"latent_kernel": demand})


def _pool(kind: str, tokens: int) -> LatentCache:
    return latent_pool(tokens, _PAGE, DTYPES[kind], _CPU)


def _store(kind: str) -> None:
    tokens, dtype = 64, torch.bfloat16
    query = torch.empty(tokens, 128, 128 + ROPE, dtype=dtype)
    compressed, angles = torch.empty(tokens, LATENT + ROPE, dtype=dtype), torch.empty(tokens, ROPE // 2)
    slots, weight = torch.empty(tokens, dtype=torch.int64), torch.empty(LATENT, dtype=dtype)
    store_latent(query, compressed, weight, 1e-6, angles, angles.clone(), slots, _pool(kind, tokens))
