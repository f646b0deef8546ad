"""Latent attention on a GPU.

Each cached row is read once for ``rows`` query rows, as keys and, its first ``latent_dim`` elements, as values: for one
decode of 128 heads beside 4,096 cached rows of 512 + 64 in bfloat16 4.7 MB from memory and 128 × 4,096 × 2 × (576 +
512) = 1.1 × 10⁹ operations, 242 for each byte: as near to the bound of the tensor cores (about 200 operations a byte on
an H200) as to that of memory. With 16 heads it is 30, and memory is the bound.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import triton
from torch import Tensor

from kernels.attention.cache import Launch, PagedBatch
from kernels.attention.launch import plan_launch
from kernels.attention.triton.reduce import reduce_kernel
from kernels.gpu import Device, device_of, tile_shape
from kernels.gpu.tiles import TileShape
from kernels.latent_attention.cache import LatentCache
from kernels.latent_attention.triton.attend import LatentConstants, latent_kernel

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def latent_attention(query: Tensor, cache: LatentCache, batch: PagedBatch, scale: float) -> Tensor:
    """See :func:`kernels.latent_attention.latent_attention`.

    :raises ValueError: what :func:`_check` refuses.
    """
    _check(query, cache)
    tokens, heads, _ = query.shape
    output = torch.empty((tokens, heads, cache.latent_dim), dtype=query.dtype, device=query.device)
    launch = batch.launch or _launch_of(query, cache, batch)
    call = _Call(output, query, cache, batch, launch, scale)
    if launch.decodes:
        call.decode()
    if launch.max_queries:
        call.prefill()
    return output


def head_groups(heads: int, cache: LatentCache, device: Device) -> int:
    """Programs that share a decode's context: what :func:`kernels.attention.plan_launch` takes as KV heads."""
    return -(-heads // _tile_shape(heads, cache.block_size, _kind(cache), device)["rows"])


class _Call:
    """One call's arguments, as its kernels take them."""

    def __init__(
        self, output: Tensor, query: Tensor, cache: LatentCache, batch: PagedBatch, launch: Launch, scale: float
    ) -> None:
        self._output, self._query, self._cache = output, query, cache
        self._batch, self._launch, self._scale = batch, launch, scale
        self._device = device_of(query)
        self._heads = query.shape[1]
        self._kind = _kind(cache)

    def decode(self) -> None:
        """Launch the kernel on the decodes, and the reduction if there is more than one split."""
        sequences, splits = self._launch.decodes, self._launch.splits
        cells = (sequences, self._heads, splits) if splits > 1 else (0,)
        partial = self._query.new_empty((*cells, self._cache.latent_dim), dtype=torch.float32)
        peaks = self._query.new_empty(cells, dtype=torch.float32)
        constants = self._attend(0, sequences, self._heads, splits, partial, peaks)
        if splits > 1:
            shape = tile_shape("latent_attention", "reduce", "any", self._device)
            reduce_kernel[(sequences, self._heads)](
                self._output, partial, peaks, None, self._batch.query_starts, self._batch.context_lengths,
                self._launch.split_tokens, constants, **shape,
            )  # fmt: skip

    def prefill(self) -> None:
        """Launch the kernel on the sequences after the decodes."""
        skipped = self._launch.decodes
        sequences = self._batch.context_lengths.shape[0] - skipped
        self._attend(skipped, sequences, self._launch.max_queries * self._heads, 1, self._output, self._output)

    def _attend(
        self, skipped: int, sequences: int, rows: int, splits: int, partial: Tensor, peaks: Tensor
    ) -> LatentConstants:
        shape = _tile_shape(rows, self._cache.block_size, self._kind, self._device)
        constants = self._constants(shape, splits)
        native = self._cache.scale is None or constants.native_fp8
        latent_kernel[(triton.cdiv(rows, shape["rows"]), sequences, splits)](
            self._output, partial, peaks, self._query,
            self._cache.rows if native else self._cache.rows.view(torch.uint8), self._cache.scale,
            self._batch.query_starts, self._batch.context_lengths, self._batch.block_tables,
            self._launch.split_tokens, self._scale, skipped,
            self._cache.rows.stride(0), self._batch.block_tables.stride(0), constants,
            num_warps=shape["num_warps"], num_stages=shape["num_stages"],
        )  # fmt: skip
        return constants

    def _constants(self, shape: TileShape, splits: int) -> LatentConstants:
        return LatentConstants(
            kv_heads=1,
            group=self._heads,
            head_dim=self._cache.latent_dim,
            padded_dim=self._cache.latent_dim,
            page=self._cache.block_size,
            rows=shape["rows"],
            tile=shape["tile"],
            splits=splits,
            window=None,
            softcap=None,
            alibi=False,
            sinks=False,
            scaled=self._cache.scale is not None,
            native_fp8=self._device.capability >= 89,
            precision="ieee" if self._query.dtype == torch.float32 else "tf32",
            rope_dim=self._cache.rope_dim,
        )


def _kind(cache: LatentCache) -> str:
    return ".fp8" if cache.scale is not None else ".f32" if cache.rows.dtype == torch.float32 else ""


def _tile_shape(rows: int, block_size: int, kind: str, device: Device) -> TileShape:
    """``rows``: query rows that share a context; no program takes more than 64. No tile is longer than a block."""
    rows, block_size = min(64, max(16, triton.next_power_of_2(rows))), min(64, block_size)
    return tile_shape("latent_attention", "attend", f"r{rows}.b{block_size}{kind}", device)


def _launch_of(query: Tensor, cache: LatentCache, batch: PagedBatch) -> Launch:
    """Read the lengths back: waits for the device."""
    starts = batch.query_starts.tolist()
    queries = [stop - start for start, stop in pairwise(starts)]
    device = device_of(query)
    groups = head_groups(query.shape[1], cache, device)
    plan = plan_launch(queries, batch.context_lengths.tolist(), groups, device)
    return plan.launch(torch.tensor([plan.split_tokens], dtype=torch.int32, device=query.device))


def _check(query: Tensor, cache: LatentCache) -> None:
    stored = torch.float8_e4m3fn if cache.scale is not None else query.dtype
    if query.dtype not in _DTYPES or cache.rows.dtype != stored:
        raise ValueError(
            f"latent attention on a GPU takes float16, bfloat16 or float32 queries beside a cache of the same dtype, "
            f"or of float8_e4m3fn with a scale; got {query.dtype} beside {cache.rows.dtype}"
        )
    for name, size in (("latents", cache.latent_dim), ("rotated parts", cache.rope_dim), ("blocks", cache.block_size)):
        if size < 16 or size & (size - 1):
            raise ValueError(f"latent attention on a GPU takes {name} of a power of two, at least 16, not {size}")
    if query.shape[2] != cache.width:
        raise ValueError(f"queries of {query.shape[2]} elements do not fit a cache of {cache.width}")
