"""The options of ``slipway-serve`` as its two processes receive them, checked once by the command line."""

from __future__ import annotations

from typing import Literal

import msgspec

Device = Literal["auto", "cpu", "cuda"]
DType = Literal["auto", "float32", "bfloat16", "float16"]
LoadFormat = Literal["auto", "safetensors", "dummy"]
KVCacheDType = Literal["auto", "fp8"]
Quantization = Literal["auto", "none", "int8-dynamic"]
LogFormat = Literal["text", "json"]


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine process is started with, sent as JSON on its command line.

    ``model`` is a local folder (the command line has resolved hub ids). ``max_model_len`` and ``kv_cache_memory``
    (bytes) None mean: fit to the memory that is free. ``kv_cache_dtype`` auto is the dtype of the computation.
    ``threads`` None means one per physical core. An engine that has work but ends no step for ``stall_timeout`` seconds
    gives up; None means: fit to the model.
    """

    model: str
    device: Device = "auto"
    dtype: DType = "auto"
    quantization: Quantization = "auto"
    load_format: LoadFormat = "auto"
    max_model_len: int | None = None
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 2048
    kv_cache_memory: int | None = None
    kv_cache_dtype: KVCacheDType = "auto"
    block_size: int | None = None
    enable_prefix_caching: bool = True
    batch_invariant: bool = False
    seed: int = 0
    threads: int | None = None
    stall_timeout: float | None = None


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the API process is started with, beside the engine's options.

    ``port`` 0 means: any free one. ``api_key_digests`` are SHA-256 digests; none means that no key is asked for.
    ``chat_template`` is the text of a template that replaces the model's own. ``boot_id`` is whatever tells this start
    of the server from another one at the same address; ``/ready`` repeats it.
    """

    model: str
    served_model_name: str
    revision: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    api_key_digests: tuple[bytes, ...] = ()
    chat_template: str | None = None
    boot_id: str | None = None
    log_format: LogFormat = "text"
