"""Paged attention: decodes against the copy's bandwidth, chunks of prompts against the matrix product's rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.kernels import flashinfer
from benchmarks.gpu.workloads.attention import AttentionCall, Heads, attention
from benchmarks.gpu.workloads.tensors import random
from kernels.attention import LayerCache

BATCHES = (1, 4, 16, 64, 256)
CONTEXTS = (1024, 4096, 16_384, 32_768, 131_072)
PROMPTS = (8192, 16_384, 32_768)
_POOL = 64 * 10**9
"""Bytes of keys and values at most; what needs more is left out, which the table says."""
_GATHERED = 4 * 10**9
"""Bytes that are copied for a peer at most."""

Call = Callable[[], object]


def decode(
    bench: Bench, heads: Heads | None = None, batches: Sequence[int] = BATCHES, contexts: Sequence[int] = CONTEXTS
) -> None:
    """One query token each of a batch whose contexts are equally long."""
    heads = heads or Heads()
    cases = [(batch, context) for context in contexts for batch in batches]
    fitting = [(batch, context) for batch, context in cases if batch * context * heads.token_bytes <= _POOL]
    for batch, context in cases:
        if (batch, context) not in fitting:
            bench.say(f"decode_attention, batch {batch}, context {context}: the keys and values do not fit; left out")
    pool = heads.pool(max(batch * context for batch, context in fitting), bench.device)
    for batch, context in fitting:
        call = attention(heads, [1] * batch, [context] * batch, pool)
        keys = batch * context * heads.token_bytes
        bench.figure(
            "decode_attention",
            f"batch {batch}, context {context}",
            call,
            moved=keys + 2 * call.query.nbytes,
            operations=4 * heads.heads * heads.head_dim * batch * context,
            peers=_decode_peers(call, heads) if keys <= _GATHERED else flashinfer.decode(call),
        )


def prefill(bench: Bench, heads: Heads | None = None, prompts: Sequence[int] = PROMPTS) -> None:
    """One whole prompt."""
    heads = heads or Heads()
    pool = heads.pool(max(prompts), bench.device)
    for prompt in prompts:
        call = attention(heads, [prompt], [prompt], pool)
        bench.figure(
            "prefill_attention",
            f"{prompt} tokens",
            call,
            moved=prompt * heads.token_bytes + 2 * call.query.nbytes,
            operations=4 * heads.heads * heads.head_dim * prompt * (prompt + 1) // 2,
            peers=_prefill_peers(heads, prompt, bench.device),
        )


def _decode_peers(call: AttentionCall, heads: Heads) -> dict[str, Call]:
    """SDPA over the pages, gathered each time and gathered once; all query heads of a KV head are its rows, which is
    the quickest way to call it."""
    query = call.query.view(call.query.shape[0], heads.kv_heads, -1, heads.head_dim)
    context = int(call.batch.context_lengths[0])
    gathered = gather(call.cache, call.batch.block_tables, context)

    def gathering() -> Tensor:
        return scaled_dot_product_attention(query, *gather(call.cache, call.batch.block_tables, context))

    return {
        "SDPA over gathered pages": gathering,
        "SDPA, pages gathered before": lambda: scaled_dot_product_attention(query, *gathered),
        **flashinfer.decode(call),
    }


def gather(cache: LayerCache, block_tables: Tensor, context: int) -> tuple[Tensor, Tensor]:
    """Every sequence's keys and values, ``[sequences, kv_heads, context, head_dim]`` each."""
    sequences, blocks = block_tables.shape
    shape = (sequences, blocks, cache.kv_heads, cache.block_size, cache.head_dim)
    key, value = (
        part.index_select(0, block_tables.view(-1)).view(shape).transpose(1, 2).flatten(2, 3)[:, :, :context]
        for part in (cache.key, cache.value)
    )
    return key, value


def _prefill_peers(heads: Heads, prompt: int, device: torch.device) -> dict[str, Call]:
    """SDPA on contiguous tensors, with as many KV heads as query heads, which not every backend can do without."""
    query, key, value = (random((1, heads.heads, prompt, heads.head_dim), heads.dtype, device) for _ in range(3))

    def by(backend: SDPBackend) -> Call:
        def call() -> Tensor:
            with sdpa_kernel(backend):
                return scaled_dot_product_attention(query, key, value, is_causal=True)

        return call

    return {
        "SDPA, cuDNN": by(SDPBackend.CUDNN_ATTENTION),
        "SDPA, flash": by(SDPBackend.FLASH_ATTENTION),
        **flashinfer.prefill(heads, prompt, device),
    }
