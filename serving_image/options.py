"""The options of ``slipway-serve`` that the engine process needs, checked once by the command line."""

from __future__ import annotations

from typing import Literal

import msgspec

Device = Literal["auto", "cpu", "cuda"]
DType = Literal["auto", "float32", "bfloat16", "float16"]
LoadFormat = Literal["auto", "safetensors", "dummy"]


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine process is started with, sent as JSON on its command line.

    ``model`` is a local folder (the command line has resolved hub ids). ``max_model_len`` and ``kv_cache_memory``
    (bytes) None mean: fit to the memory that is free. ``threads`` None means one per physical core.
    """

    model: str
    device: Device = "auto"
    dtype: DType = "auto"
    load_format: LoadFormat = "auto"
    max_model_len: int | None = None
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 2048
    kv_cache_memory: int | None = None
    block_size: int | None = None
    seed: int = 0
    threads: int | None = None
