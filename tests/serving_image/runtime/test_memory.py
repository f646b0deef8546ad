"""The cache is sized to what is free, and a context that does not fit is refused with one that does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serving_image.errors import StartupError
from serving_image.models.cache_layout import CacheLayout, CacheShape
from serving_image.options import EngineOptions
from serving_image.runtime.memory import KVPlan, _cgroup_available, free_memory, plan_kv_cache

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@dataclass(frozen=True)
class Sizes:
    """What the runtime plans with, of a model with these caches."""

    cache_layout: CacheLayout
    vocab_size: int = 32000
    hidden_size: int = 1024
    max_position: int = 4096
    query_elements: int = 1024
    activation_elements: int = 18432
    depends_on_lengths: bool = False


CONFIG = Sizes(CacheLayout((CacheShape(4, 64),) * 16))
# Four full layers and twelve of a window: four groups of four layers.
WINDOWED = Sizes(CacheLayout((CacheShape(4, 64), *(CacheShape(4, 64, 512),) * 3) * 4))
TOKEN_BYTES = 2 * 16 * 4 * 64 * 2
GIB = 1 << 30


def _plan(free: int, config: Sizes = CONFIG, **options: Any) -> KVPlan:
    return plan_kv_cache(config, torch.bfloat16, CPU, EngineOptions(model="m", **options), free)


def test_plenty_of_memory_gives_every_request_the_whole_context_and_no_more() -> None:
    plan = _plan(64 * GIB)
    assert plan.max_model_len == 4096
    assert plan.num_blocks * plan.block_size == 64 * 4096
    assert plan.cache_bytes == 64 * 4096 * TOKEN_BYTES


def test_little_memory_shortens_the_context_instead_of_refusing() -> None:
    plan = _plan(GIB // 2)
    assert 128 <= plan.max_model_len < 4096
    assert plan.num_blocks * plan.block_size >= plan.max_model_len
    assert plan.cache_bytes <= GIB // 2


def test_no_memory_is_refused() -> None:
    with pytest.raises(StartupError, match="no memory for a key/value cache"):
        _plan(GIB // 8)


def test_a_context_that_does_not_fit_is_refused_with_the_largest_that_does() -> None:
    with pytest.raises(StartupError) as caught:
        _plan(GIB // 2, max_model_len=4096)
    largest = int(caught.value.next_step.split()[1])
    assert _plan(GIB // 2, max_model_len=largest).max_model_len == largest
    with pytest.raises(StartupError):
        _plan(GIB // 2, max_model_len=largest + 1)


def test_a_context_beyond_the_models_own_is_refused() -> None:
    with pytest.raises(StartupError, match="Use 4096 or less"):
        _plan(64 * GIB, max_model_len=4097)


def test_a_stated_cache_size_is_kept_or_refused() -> None:
    plan = _plan(8 * GIB, kv_cache_memory=1000 * TOKEN_BYTES, block_size=16)
    assert (plan.block_size, plan.num_blocks, plan.max_model_len) == (16, 62, 992)
    with pytest.raises(StartupError, match="Use --kv-cache-memory") as caught:
        _plan(8 * GIB, kv_cache_memory=8 * GIB)
    _plan(8 * GIB, kv_cache_memory=int(caught.value.next_step.split()[2]))


@settings(deadline=None)
@given(
    free=st.integers(0, 100 * GIB),
    block_size=st.one_of(st.none(), st.integers(1, 512)),
    max_num_seqs=st.integers(1, 256),
    max_model_len=st.one_of(st.none(), st.integers(1, 4096)),
    config=st.sampled_from([CONFIG, WINDOWED]),
)
def test_one_full_context_always_fits_in_what_was_free(
    free: int, block_size: int | None, max_num_seqs: int, max_model_len: int | None, config: Sizes
) -> None:
    options = {"block_size": block_size, "max_num_seqs": max_num_seqs, "max_model_len": max_model_len}
    try:
        plan = _plan(free, config, **options)
    except StartupError:
        return
    assert plan.num_blocks >= plan.demand.most(plan.max_model_len) > 0
    assert plan.cache_bytes + plan.workspace_bytes <= free


def _plan_on_gpu(free: int, cache_dtype: torch.dtype | None = None, **options: Any) -> KVPlan:
    # With a context that is stated, and so many requests that the cache takes what is left.
    engine = EngineOptions(model="m", max_num_seqs=4096, max_model_len=4096, **options)
    return plan_kv_cache(CONFIG, torch.bfloat16, GPU, engine, free, cache_dtype=cache_dtype)


def test_engines_that_share_a_gpu_each_take_of_what_is_left() -> None:
    first = _plan_on_gpu(100 * GIB)
    left = 100 * GIB - first.cache_bytes - first.workspace_bytes
    assert 0.09 * 100 * GIB < left < 0.11 * 100 * GIB
    second = _plan_on_gpu(left)
    assert 0 < second.cache_bytes <= left - second.workspace_bytes
    stated = _plan_on_gpu(100 * GIB, kv_cache_memory=20 * GIB)
    assert 20 * GIB - stated.bytes_per_block < stated.cache_bytes <= 20 * GIB
    second = _plan_on_gpu(100 * GIB - stated.cache_bytes - stated.workspace_bytes, kv_cache_memory=20 * GIB)
    assert second.cache_bytes == stated.cache_bytes


def test_a_cache_of_fp8_holds_twice_the_tokens() -> None:
    exact, rounded = (_plan_on_gpu(100 * GIB, dtype) for dtype in (None, torch.float8_e4m3fn))
    assert rounded.bytes_per_block * 2 == exact.bytes_per_block
    assert rounded.num_blocks // 2 == exact.num_blocks
    assert rounded.workspace_bytes == exact.workspace_bytes


def test_block_sizes_that_no_gpu_kernel_reads_are_refused() -> None:
    assert _plan_on_gpu(100 * GIB, block_size=64).block_size == 64
    for block_size in (1, 48, 512):
        with pytest.raises(StartupError, match="Use one of 16, 32"):
            _plan_on_gpu(100 * GIB, block_size=block_size)


def test_the_table_adds_up() -> None:
    table = _plan(64 * GIB).table(weight_bytes=GIB, max_num_seqs=64)
    assert "4096 tokens; 64.0 full contexts fit" in table
    assert "4.00 GiB   8192 blocks of 32 tokens" in table


def test_windowed_layers_take_their_windows_only() -> None:
    """Of a request of 4,096 tokens twelve of sixteen layers keep 512 and what a step of 64 adds: 19 blocks of 32."""
    options = {"max_num_batched_tokens": 64}
    full, windowed = _plan(64 * GIB, **options), _plan(64 * GIB, WINDOWED, **options)
    assert windowed.bytes_per_block * 4 == full.bytes_per_block
    assert full.num_blocks == 64 * 128
    assert windowed.num_blocks == 64 * (128 + 3 * 19)
    assert windowed.cache_bytes == 0.3613281250 * full.cache_bytes
    table = windowed.table(weight_bytes=GIB, max_num_seqs=64)
    assert "3 of 4 groups of layers keep 512 tokens and a step in at most 19 blocks" in table
    assert "4096 tokens; 64.0 full contexts fit" in table
    assert "groups" not in full.table(weight_bytes=GIB, max_num_seqs=64)


def test_a_context_that_full_layers_could_not_hold_fits_with_windows() -> None:
    options = {"max_num_batched_tokens": 64, "kv_cache_memory": 2000 * TOKEN_BYTES}
    assert _plan(8 * GIB, **options).max_model_len == 1984
    plan = _plan(8 * GIB, WINDOWED, **options)
    assert plan.max_model_len == 4096
    assert plan.num_blocks == 250
    with pytest.raises(StartupError, match="Use 1984 or less"):
        _plan(8 * GIB, max_model_len=4096, **options)
    windows_only = Sizes(CacheLayout((CacheShape(4, 64, 512),) * 16), max_position=1 << 20)
    assert _plan(8 * GIB, windows_only, **options).max_model_len == 1 << 20


def test_free_memory_is_bounded_by_the_machine() -> None:
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < free_memory(CPU) <= total


def test_cgroup_limits_are_read_in_both_versions(tmp_path: Path) -> None:
    assert _cgroup_available(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\nactive_file 50\n")
    assert _cgroup_available(tmp_path) == 450
    (tmp_path / "memory.max").write_text("max\n")
    assert _cgroup_available(tmp_path) is None
    old = tmp_path / "v1"
    (old / "memory").mkdir(parents=True)
    (old / "memory" / "memory.limit_in_bytes").write_text("2000")
    (old / "memory" / "memory.usage_in_bytes").write_text("1500")
    (old / "memory" / "memory.stat").write_text("total_inactive_file 100\n")
    assert _cgroup_available(old) == 600
    (old / "memory" / "memory.limit_in_bytes").write_text(str(2**63 - 4096))
    assert _cgroup_available(old) is None
