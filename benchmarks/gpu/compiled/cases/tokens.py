"""What prepares a step and what lies between a projection and attention: batch inputs, rotation and storage."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.gpu.compiled.case import DTYPES, Case
from benchmarks.gpu.workloads.attention import Heads
from kernels.batch_inputs import BLOCK_WORDS, ITEM_WORDS, BatchInputs, RequestTables, StepSize, write_inputs
from kernels.rotate_and_store import rotate_and_store
from kernels.rotate_and_store.norms import HeadNorms

_TOKENS = 64
_CPU = torch.device("cpu")


def cases() -> Iterator[Case]:
    """Every size of head, the dtypes, partial rotation and the norms."""
    for head_dim in (64, 80, 96, 112, 128, 192, 256):
        yield _rotate(f"bf16 d{head_dim}", Heads(head_dim=head_dim), head_dim // 2)
    for kind in ("fp16", "fp32"):
        yield _rotate(f"{kind} d128", Heads(dtype=DTYPES[kind]), 64)
    yield _rotate("bf16 d128 fp8 cache", Heads(cache_dtype=DTYPES["fp8"]), 64)._replace(capabilities=(90, 100))
    yield _rotate("bf16 d128 partial", Heads(), 16)
    yield _rotate("bf16 d128 stored only", Heads(), 0)
    for name, half, norms in _norms(Heads()):
        yield _rotate(f"bf16 d128 {name}", Heads(), half, norms)
    yield Case("batch_inputs", "write", lambda: _write_inputs(groups=1))
    yield Case("batch_inputs", "write groups", lambda: _write_inputs(groups=6))


def _norms(heads: Heads) -> Iterator[tuple[str, int, HeadNorms]]:
    """Those of Qwen3, Gemma 3, OLMo 2, Command R+, Persimmon, MPT and Hunyuan."""
    shared = torch.empty(2, heads.head_dim, dtype=heads.dtype)
    query, key = (torch.empty(count * heads.head_dim, dtype=heads.dtype) for count in (heads.heads, heads.kv_heads))
    yield "head norm", 64, HeadNorms(*shared, 1e-6)
    yield "head norm fp32", 64, HeadNorms(*shared.float(), 1e-6)
    yield "projection norm", 64, HeadNorms(query, key, 1e-6, extent="projection")
    yield "head layer norm", 64, HeadNorms(query, key, 1e-6, "layer")
    biased = HeadNorms(*shared, 1e-6, "layer", query_bias=shared[0].clone(), key_bias=shared[1].clone())
    yield "head layer norm bias partial", 32, biased
    yield "projection layer norm", 0, HeadNorms(query, key, 1e-6, "layer", "projection")
    yield "head norm after", 64, HeadNorms(*shared, 1e-6, after_rotation=True)


def _rotate(name: str, heads: Heads, half: int, norms: HeadNorms | None = None) -> Case:
    def call() -> object:
        width = (heads.heads + 2 * heads.kv_heads) * heads.head_dim
        angles = torch.empty(_TOKENS, half)
        slots = torch.empty(_TOKENS, dtype=torch.int64)
        qkv = torch.empty(_TOKENS, width, dtype=heads.dtype)
        return rotate_and_store(qkv, angles, angles.clone(), slots, heads.pool(_TOKENS, _CPU), norms)

    return Case("rotate_and_store", name, call)


def _write_inputs(groups: int) -> None:
    items, max_model_len, max_blocks = 8, 4096, 128
    of = {name: torch.empty(_TOKENS, dtype=torch.int64) for name in BatchInputs._fields}
    for name in ("query_starts", "context_lengths", "sampled_rows", "sampled_positions", "split_tokens"):
        of[name] = torch.empty(items + 1, dtype=torch.int32)
    of["slots"] = torch.empty(groups, _TOKENS, dtype=torch.int64)
    of["block_tables"] = torch.empty(groups, items, max_blocks, dtype=torch.int32)
    words = torch.empty(1 + (ITEM_WORDS + groups * BLOCK_WORDS) * items + 8, dtype=torch.int32)
    tables = RequestTables(
        torch.empty(items, max_model_len, dtype=torch.int32),
        torch.empty(items, dtype=torch.int32),
        torch.empty(groups, items, max_blocks, dtype=torch.int32),
    )
    write_inputs(words, StepSize(items, 0, 128), 32, tables, BatchInputs(**of))
