"""Rows of a table on a GPU: ``[tokens, hidden]`` read and as much written, no arithmetic. 8,192 tokens of 4,096 in
bfloat16 move 134 MB, less where tokens repeat."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu import device_of, tile_shape


def embed(token_ids: Tensor, table: Tensor, out: Tensor) -> None:
    """See :func:`kernels.embedding.embed`."""
    tokens, hidden = out.shape
    if not tokens:
        return
    tile = tile_shape("embedding", "rows", "any", device_of(table))
    _embed[(tokens, triton.cdiv(hidden, tile["block"]))](
        token_ids,
        table,
        out,
        HIDDEN=hidden,
        BLOCK=tile["block"],
        num_warps=tile["num_warps"],
        num_stages=tile["num_stages"],
    )


@triton.jit  # type: ignore[untyped-decorator]
def _embed(token_ids: tl.tensor, table: tl.tensor, out: tl.tensor, HIDDEN: tl.constexpr, BLOCK: tl.constexpr) -> None:
    token = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = columns < HIDDEN
    token_id = tl.load(token_ids + token).to(tl.int64)
    row = tl.load(table + token_id * HIDDEN + columns, mask=mask & (token_id >= 0), other=0.0)
    tl.store(out + token * HIDDEN + columns, row, mask=mask)
