"""How much memory is free, and how large a key/value cache it holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from kernels.attention.launch import MAX_SPLITS
from serving_image.engine.block_demand import BlockDemand
from serving_image.errors import StartupError
from serving_image.models.interface import ModelConfig
from serving_image.options import EngineOptions

_CPU_SHARE = 0.3
"""Part of the free memory that the cache may take on a CPU, which others use too."""
_GPU_SHARE = 0.9
BLOCK_SIZE = 32
"""Tokens per block: what a CPU's attention streams in one piece, and the grain at which prefixes are shared."""

_GPU_BLOCK_SIZES = (16, 32, 64, 128, 256)


@dataclass(frozen=True, kw_only=True)
class KVPlan:
    """The size of the key/value cache. Invariant: one request of ``max_model_len`` tokens fits."""

    demand: BlockDemand
    num_blocks: int
    max_model_len: int
    bytes_per_block: int
    free_bytes: int
    workspace_bytes: int

    @property
    def block_size(self) -> int:
        return self.demand.block_size

    @property
    def cache_bytes(self) -> int:
        return self.num_blocks * self.bytes_per_block

    def table(self, weight_bytes: int, max_num_seqs: int) -> str:
        """The memory budget, for a person."""
        contexts = self.num_blocks / self.demand.most(self.max_model_len)
        rows = [
            ("weights", f"{_gib(weight_bytes)}"),
            ("workspace of a step", f"{_gib(self.workspace_bytes)}"),
            ("key/value cache", f"{_gib(self.cache_bytes)}   {self.num_blocks} blocks of {self.block_size} tokens"),
            ("left free", f"{_gib(self.free_bytes - self.workspace_bytes - self.cache_bytes)}"),
            ("context", f"{self.max_model_len} tokens; {contexts:.1f} full contexts fit"),
            ("requests at once", f"{max_num_seqs}"),
        ]
        rows[4:4] = [("windows", text) for text in self._windows()]
        return "memory budget\n" + "\n".join(f"  {name:<20} {value}" for name, value in rows)

    def _windows(self) -> Iterator[str]:
        """What groups of windowed layers keep of a request."""
        groups = self.demand.groups
        for (_, window, most), count in Counter(group for group in groups if group.window is not None).items():
            yield f"{count} of {len(groups)} groups of layers keep {window} tokens and a step in at most {most} blocks"


def plan_kv_cache(
    config: ModelConfig,
    dtype: torch.dtype,
    device: torch.device,
    options: EngineOptions,
    free_bytes: int,
    *,
    cache_dtype: torch.dtype | None = None,
) -> KVPlan:
    """Size the cache to the memory that is free after the weights are in place.

    What is free on a GPU is what other processes have left of it, so several engines can share one: the second takes
    its part of what the first did not. With ``--kv-cache-memory`` each takes what it is told.

    :param dtype: of the computation.
    :param cache_dtype: of the cache; None: as the computation's.
    :param free_bytes: bytes the device has free.
    :raises StartupError: the context asked for does not fit, or no useful context does, or the block size is none that
        the device's kernels read.
    """
    layout, block_size = config.cache_layout, _block_size(options, device)
    windows = tuple(group.window for group in layout.groups)
    demand = BlockDemand(block_size, windows, options.max_num_batched_tokens)
    bytes_per_block = block_size * layout.elements_per_block_token * (cache_dtype or dtype).itemsize
    workspace = _workspace_bytes(config, dtype, options)
    if device.type == "cuda":
        workspace += _device_state_bytes(config, dtype, options, demand)
    budget = options.kv_cache_memory
    if budget is None:
        share = _CPU_SHARE if device.type == "cpu" else _GPU_SHARE
        budget = max(0, int(free_bytes * share) - workspace)
    elif budget + workspace > free_bytes:
        raise StartupError(
            f"A key/value cache of {_gib(budget)} does not fit: {_gib(free_bytes)} are free and a step needs "
            f"{_gib(workspace)} of them.",
            f"Use --kv-cache-memory {max(0, free_bytes - workspace)} or less.",
        )
    num_blocks = budget // bytes_per_block
    max_model_len = _fit_context(options, config.max_position, demand.longest(num_blocks, config.max_position))
    if options.kv_cache_memory is None:
        # More than every request at full length would only take memory from others.
        num_blocks = min(num_blocks, options.max_num_seqs * demand.most(max_model_len))
    return KVPlan(
        demand=demand,
        num_blocks=num_blocks,
        max_model_len=max_model_len,
        bytes_per_block=bytes_per_block,
        free_bytes=free_bytes,
        workspace_bytes=workspace,
    )


def _block_size(options: EngineOptions, device: torch.device) -> int:
    block_size = options.block_size or BLOCK_SIZE
    if device.type == "cuda" and block_size not in _GPU_BLOCK_SIZES:
        raise StartupError(
            f"--block-size {block_size} is not served on a GPU.",
            f"Use one of {', '.join(map(str, _GPU_BLOCK_SIZES))}, or leave it out.",
        )
    return block_size


def _fit_context(options: EngineOptions, max_position: int, capacity: int) -> int:
    """The context length in tokens: as asked, or the model's own cut to what the cache holds."""
    requested = options.max_model_len
    if requested is None:
        if capacity == 0:
            raise StartupError(
                "There is no memory for a key/value cache.",
                "Free some memory, raise --kv-cache-memory, or use a smaller model.",
            )
        return min(max_position, capacity)
    if requested > max_position:
        raise StartupError(
            f"--max-model-len {requested} is more than the model's context.", f"Use {max_position} or less."
        )
    if requested > capacity:
        raise StartupError(
            f"--max-model-len {requested} does not fit in the memory for the key/value cache.",
            f"Use {capacity} or less, or free some memory.",
        )
    return requested


def _workspace_bytes(config: ModelConfig, dtype: torch.dtype, options: EngineOptions) -> int:
    """Upper estimate of what a step allocates: the widest layer's activations, and scores with what is made of them. On
    a CPU those are sorted copies; on a GPU a copy to report from, the sampler's scratch, and counts for penalties."""
    per_sampled = config.vocab_size * 4 * 6
    tokens = options.max_num_batched_tokens * config.activation_elements
    return tokens * dtype.itemsize + options.max_num_seqs * per_sampled


def _device_state_bytes(config: ModelConfig, dtype: torch.dtype, options: EngineOptions, demand: BlockDemand) -> int:
    """What a GPU holds besides: the graphs' own activations, scratch of attention over split contexts, and for each
    request its tokens and two copies of its block tables."""
    graphs = config.activation_elements * dtype.itemsize
    # Heads of 16 elements and more, with two numbers for each.
    partial = MAX_SPLITS * (config.query_elements * 9 // 8) * 4
    context = options.max_model_len or config.max_position
    row = 4 * (context + 2 * len(demand.groups) * demand.blocks_for(context))
    return options.max_num_seqs * (graphs + partial + row)


def free_memory(device: torch.device) -> int:
    """Bytes that can be allocated on the device; on a CPU, also within the cgroup's limit."""
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what loading used for a while
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    available = _meminfo_available()
    limit = _cgroup_available(Path("/sys/fs/cgroup"))
    return available if limit is None else min(available, limit)


def _meminfo_available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise StartupError("/proc/meminfo does not state MemAvailable.", "Give --kv-cache-memory in bytes.")


def _cgroup_available(root: Path) -> int | None:
    """Bytes left under a cgroup v2 or v1 memory limit, page cache counted as free; None if there is no limit."""
    for limit_name, usage_name, cache_key in (
        ("memory.max", "memory.current", "inactive_file "),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file "),
    ):
        try:
            limit = (root / limit_name).read_text().strip()
            usage = int((root / usage_name).read_text())
            stat = (root / usage_name).with_name("memory.stat").read_text()
        except (OSError, ValueError):
            continue
        if limit == "max" or int(limit) >= 1 << 60:
            return None
        cached = sum(int(line.split()[1]) for line in stat.splitlines() if line.startswith(cache_key))
        return max(0, int(limit) - usage + cached)
    return None


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.2f} GiB"
