"""Paged attention on a GPU.

Decodes and chunks of prompts differ in what bounds them, so they are two kernels, each launched if the batch has any:

* :mod:`~kernels.attention.triton.decode` reads each context's keys and values once, in as many splits as keep all
  multiprocessors reading; :mod:`~kernels.attention.triton.reduce` adds these up.
* :mod:`~kernels.attention.triton.prefill` multiplies matrices, in tiles large enough for the tensor cores.

Nothing here waits for the device when the batch brings its :class:`~kernels.attention.cache.Launch`; grids then depend
on that and on shapes alone, so the launches can be captured in a CUDA graph.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import triton
from torch import Tensor

from kernels.attention.cache import AttentionVariant, Launch, LayerCache, PagedBatch
from kernels.attention.launch import plan_launch
from kernels.attention.triton.constants import Constants
from kernels.attention.triton.decode import decode_kernel
from kernels.attention.triton.prefill import prefill_kernel
from kernels.attention.triton.reduce import reduce_kernel
from kernels.gpu import Device, device_of, tile_shape
from kernels.gpu.tiles import TileShape

HEAD_DIMS = (64, 80, 96, 112, 128, 192, 256)
"""What the tile table has entries for; other sizes take the next one's."""
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def paged_attention(
    query: Tensor, cache: LayerCache, batch: PagedBatch, scale: float, variant: AttentionVariant
) -> Tensor:
    """See :func:`kernels.attention.paged_attention`; the cache is in the plain layout.

    :raises ValueError: what :func:`_check` refuses.
    """
    _check(query, cache, scale)
    output = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    launch = batch.launch or _launch_of(batch, cache.kv_heads, device_of(query))
    call = _Call(output, query, cache, batch, launch, scale, variant)
    if launch.decodes:
        call.decode()
    if launch.max_queries and batch.context_lengths.shape[0] > launch.decodes:
        call.prefill()
    return output


class _Call:
    """One call's arguments, as its kernels take them."""

    def __init__(
        self,
        output: Tensor,
        query: Tensor,
        cache: LayerCache,
        batch: PagedBatch,
        launch: Launch,
        scale: float,
        variant: AttentionVariant,
    ) -> None:
        self._output, self._query, self._batch, self._launch, self._scale = output, query, batch, launch, scale
        self._device = device_of(query)
        self._variant, self._cache = variant, cache
        self._group = query.shape[1] // cache.kv_heads

    def decode(self) -> None:
        """Launch the decode kernel, and the reduction if there is more than one split."""
        wide = self._group > 16
        shape = self._tile_shape("decode", ".wide" if wide else "")
        rows = min(triton.next_power_of_2(self._group), shape["rows"]) if wide else shape.get("rows", 16)
        splits, sequences = self._launch.splits, self._launch.decodes
        constants = self._constants(rows, shape["tile"], splits)
        heads, dim = self._query.shape[1:]
        cells = (sequences, heads, splits) if splits > 1 else (0,)
        partial = self._query.new_empty((*cells, dim), dtype=torch.float32)
        peaks = self._query.new_empty(cells, dtype=torch.float32)
        decode_kernel[(sequences, self._cache.kv_heads * triton.cdiv(self._group, rows), splits)](
            self._output, partial, peaks, *self._tensors(), self._launch.split_tokens, self._scale, *self._strides(),
            constants, **_options(shape),
        )  # fmt: skip
        if splits > 1:
            shape = tile_shape("attention", "reduce", self._dim, self._device)
            reduce_kernel[(sequences, heads)](
                self._output, partial, peaks, self._variant.sinks, self._batch.query_starts,
                self._batch.context_lengths, self._launch.split_tokens, constants, **shape,
            )  # fmt: skip

    def prefill(self) -> None:
        """Launch the prefill kernel on the sequences after the decodes."""
        shape = self._tile_shape("prefill")
        rows = shape["rows"]
        sequences = self._batch.context_lengths.shape[0] - self._launch.decodes
        prefill_kernel[
            (sequences, triton.cdiv(self._launch.max_queries * self._group, rows), self._cache.kv_heads)
        ](
            self._output, *self._tensors(), self._scale, self._launch.decodes, *self._strides(),
            self._constants(rows, shape["tile"], 1), **_options(shape),
        )  # fmt: skip

    def _tensors(self) -> tuple[Tensor | None, ...]:
        native = not self._scaled or self._device.capability >= 89
        key, value = self._cache.key, self._cache.value
        return (
            self._query,
            key if native else key.view(torch.uint8),
            value if native else value.view(torch.uint8),
            self._cache.scales,
            self._variant.alibi_slopes,
            self._variant.sinks,
            self._batch.query_starts,
            self._batch.context_lengths,
            self._batch.block_tables,
        )

    def _strides(self) -> tuple[int, int, int]:
        return self._query.stride(0), self._cache.key.stride(0), self._batch.block_tables.stride(0)

    @property
    def _dim(self) -> str:
        return f"d{next(known for known in HEAD_DIMS if known >= self._cache.head_dim)}"

    @property
    def _scaled(self) -> bool:
        return self._cache.scales is not None

    def _tile_shape(self, kernel: str, width: str = "") -> TileShape:
        """Cases are ``d128``, ``d128.fp8`` and ``d128.f32``, for decodes of many heads with ``.wide`` behind."""
        kind = ".fp8" if self._scaled else ".f32" if self._query.dtype == torch.float32 else ""
        return tile_shape("attention", kernel, f"{self._dim}{kind}{width}", self._device)

    def _constants(self, rows: int, tile: int, splits: int) -> Constants:
        return Constants(
            kv_heads=self._cache.kv_heads,
            group=self._group,
            head_dim=self._cache.head_dim,
            padded_dim=max(16, triton.next_power_of_2(self._cache.head_dim)),
            page=self._cache.block_size,
            rows=rows,
            tile=tile,
            splits=splits,
            window=self._variant.window,
            softcap=self._variant.softcap,
            alibi=self._variant.alibi_slopes is not None,
            sinks=self._variant.sinks is not None,
            scaled=self._scaled,
            native_fp8=self._device.capability >= 89,
            precision="ieee" if self._query.dtype == torch.float32 else "tf32",
        )


def _options(shape: TileShape) -> dict[str, int]:
    """What of a tile shape the compiler takes: num_warps, num_stages, maxnreg."""
    return {name: value for name, value in shape.items() if name not in {"rows", "tile"}}


def _launch_of(batch: PagedBatch, kv_heads: int, device: Device) -> Launch:
    """Read the lengths back: waits for the device."""
    starts = batch.query_starts.tolist()
    queries = [stop - start for start, stop in pairwise(starts)]
    plan = plan_launch(queries, batch.context_lengths.tolist(), kv_heads, device)
    return plan.launch(torch.tensor([plan.split_tokens], dtype=torch.int32, device=batch.query_starts.device))


def _check(query: Tensor, cache: LayerCache, scale: float) -> None:
    heads, dim = query.shape[1:]
    stored = torch.float8_e4m3fn if cache.scales is not None else query.dtype
    if query.dtype not in _DTYPES or cache.key.dtype != stored or cache.value.dtype != stored:
        raise ValueError(
            f"attention on a GPU takes float16, bfloat16 or float32 queries beside a cache of the same dtype, or of "
            f"float8_e4m3fn with scales; got {query.dtype} beside {cache.key.dtype} and {cache.value.dtype}"
        )
    if dim > HEAD_DIMS[-1] or dim != cache.head_dim or heads % cache.kv_heads:
        raise ValueError(
            f"heads of at most {HEAD_DIMS[-1]} elements, a multiple of the cache's in number; got {heads} of {dim} "
            f"beside {cache.kv_heads} of {cache.head_dim}"
        )
    if cache.block_size < 16 or cache.block_size & (cache.block_size - 1):
        raise ValueError(f"attention on a GPU takes blocks of a power of two, at least 16, not {cache.block_size}")
    page = (cache.block_size * dim, dim, 1)
    if query.stride()[1:] != page[1:] or cache.key.stride()[1:] != page or cache.value.stride() != cache.key.stride():
        raise ValueError("each token's query heads, and each block's keys and values of a head, must be contiguous")
    if not scale > 0:
        raise ValueError(f"the scale must be positive, not {scale}")
