"""RMS normalisation on a GPU: a row stays in registers from its one read to its one write.

``[tokens, hidden]`` in, the same out: 2 · tokens · hidden elements moved, 4 · tokens · hidden with a residual, and the
weight once. At most 6 operations per element, so the floor is the bytes': 8,192 tokens of 4,096 in bfloat16 are 134 MB,
with a residual 268 MB.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu import device_of, tile_shape

NARROWEST = 256
"""Columns of the narrowest tile: 16 bytes for each lane of a warp."""


def rms_norm(x: Tensor, weight: Tensor, epsilon: float, residual: Tensor | None) -> Tensor:
    """See :func:`kernels.rms_norm.rms_norm`."""
    tokens, hidden = x.shape
    output = torch.empty((tokens, hidden), dtype=x.dtype, device=x.device)
    if not tokens:
        return output
    block = max(NARROWEST, triton.next_power_of_2(hidden))
    tile = tile_shape("rms_norm", "rows", f"w{block}", device_of(x))
    _rms_norm[(triton.cdiv(tokens, tile["rows"]),)](
        x,
        residual,
        weight,
        output,
        tokens,
        epsilon,
        HIDDEN=hidden,
        BLOCK=block,
        ROWS=tile["rows"],
        num_warps=tile["num_warps"],
        num_stages=tile["num_stages"],
    )
    return output


@triton.jit(do_not_specialize=["tokens"])  # type: ignore[untyped-decorator]
def _rms_norm(
    x: tl.tensor,
    residual: tl.tensor,
    weight: tl.tensor,
    output: tl.tensor,
    tokens: tl.tensor,
    epsilon: tl.tensor,
    HIDDEN: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    places, mask = row_places(tokens, HIDDEN, BLOCK, ROWS)
    scale = load_vector(weight, HIDDEN, BLOCK, ROWS)
    values = load_rows(x, residual, places, mask)
    mean_square = tl.sum(values * values, axis=1, keep_dims=True) / HIDDEN
    normalised = values * tl.rsqrt(mean_square + epsilon) * scale
    tl.store(output + places, normalised.to(output.dtype.element_ty), mask=mask)


@triton.jit  # type: ignore[untyped-decorator]
def row_places(
    tokens: tl.tensor, HIDDEN: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """Offsets of this program's elements in ``[tokens, HIDDEN]``, and which of them exist: ``[ROWS, BLOCK]`` each."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    columns = tl.arange(0, BLOCK)[None, :]
    return rows.to(tl.int64) * HIDDEN + columns, (rows < tokens) & (columns < HIDDEN)


@triton.jit  # type: ignore[untyped-decorator]
def load_vector(vector: tl.tensor, HIDDEN: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr) -> tl.tensor:
    """``[HIDDEN]`` repeated as ``[ROWS, BLOCK]`` float32. Read in the shape of the rows that it meets: a vector's own
    layout would be exchanged for theirs through shared memory."""
    columns = tl.arange(0, BLOCK)[None, :] + tl.zeros((ROWS, 1), tl.int32)
    return tl.load(vector + columns, mask=columns < HIDDEN, other=0.0, eviction_policy="evict_last").to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def load_rows(x: tl.tensor, residual: tl.tensor, places: tl.tensor, mask: tl.tensor) -> tl.tensor:
    """The rows in float32, 0 where there are none. With a residual: their sum, rounded as it is stored, so that the
    result is what a separate addition would give."""
    values = tl.load(x + places, mask=mask, other=0.0)
    if residual is not None:
        stream = tl.load(residual + places, mask=mask, other=0.0)
        values = (values.to(tl.float32) + stream.to(tl.float32)).to(values.dtype)
        tl.store(residual + places, values, mask=mask)
    return values.to(tl.float32)
