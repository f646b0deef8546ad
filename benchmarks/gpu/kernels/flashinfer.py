"""FlashInfer on the same pages, if it is installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.workloads.attention import AttentionCall, Heads
from benchmarks.gpu.workloads.tensors import random

_WORKSPACE = 2**27

Call = Callable[[], object]


def decode(call: AttentionCall) -> dict[str, Call]:
    """Its decode kernels on our cache, which has the layout that it calls HND. Planned once, as an engine would."""
    library = _library()
    if library is None or call.cache.scales is not None:
        return {}

    def planned() -> Call:
        page, contexts = call.cache.block_size, call.batch.context_lengths.cpu()
        pages = (contexts + page - 1) // page
        tables = call.batch.block_tables.cpu()
        wrapper = library.BatchDecodeWithPagedKVCacheWrapper(
            torch.empty(_WORKSPACE, dtype=torch.uint8, device=call.query.device), "HND", use_tensor_cores=True
        )
        wrapper.plan(
            torch.cat((torch.zeros(1, dtype=torch.int32), pages.cumsum(0).int())),
            torch.cat([table[:count] for table, count in zip(tables, pages.tolist(), strict=True)]).cuda(),
            (contexts - 1) % page + 1,
            call.query.shape[1],
            call.cache.kv_heads,
            call.cache.head_dim,
            page,
            q_data_type=call.query.dtype,
            kv_data_type=call.cache.key.dtype,
        )
        return lambda: wrapper.run(call.query, (call.cache.key, call.cache.value))

    return {"FlashInfer": _Later(planned)}


def prefill(heads: Heads, prompt: int, device: torch.device) -> dict[str, Call]:
    """Its kernel for one contiguous prompt."""
    library = _library()
    if library is None:
        return {}
    query = random((prompt, heads.heads, heads.head_dim), heads.dtype, device)
    key, value = (random((prompt, heads.kv_heads, heads.head_dim), heads.dtype, device) for _ in range(2))
    return {"FlashInfer": lambda: library.single_prefill_with_kv_cache(query, key, value, causal=True)}


class _Later:
    """A call that is prepared when it is first made, where failing is the peer's failure."""

    def __init__(self, prepare: Callable[[], Call]) -> None:
        self._prepare = prepare
        self._call: Call | None = None

    def __call__(self) -> object:
        if self._call is None:
            self._call = self._prepare()
        return self._call()


def _library() -> Any:
    try:
        return importlib.import_module("flashinfer")
    except ImportError:
        return None
