# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="untyped-decorator"
"""Reading keys and values through a block table.

A page of one KV head is one run of ``page × head_dim`` elements. A tile of keys lies in one page where ``tile ≤ page``,
so one number finds it; a longer tile needs its rows' page numbers one by one::

    tile 32, page 64:    [ page 7              ]      tile 64, page 16:   [ 7 ][ 3 ][ 9 ][ 1 ]
                         [ tile ][ tile ]                                 [ tile             ]

Loops read numbers a tile ahead and carry them: loaded where they are used, they would be a stage of the compiler's
pipeline of their own, and only half of its depth would be left for keys and values.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def page_numbers(table, start, first, stop, C):
    """Of the tile at ``start``: one, or ``[tile]``. Of entries outside ``first … stop - 1`` none is read."""
    if C.tile <= C.page:
        page = tl.load(table + start // C.page, mask=start < stop, other=0)
    else:
        token = start + tl.arange(0, C.tile)
        page = tl.load(table + token // C.page, mask=(token >= first) & (token < stop), other=0)
    return page.to(tl.int64)


@triton.jit
def load_tile(cache, page, start, inside, block_stride, C, MASKED: tl.constexpr):
    """Keys or values of one KV head, ``[tile, padded_dim]``; with ``MASKED``, rows that are not ``inside`` are zero.

    :param cache: points to the KV head in block 0.
    """
    row = tl.arange(0, C.tile)
    dim = tl.arange(0, C.padded_dim)
    if C.tile <= C.page:
        pointers = cache + page * block_stride + (start % C.page) * C.head_dim
        pointers = pointers + row[:, None] * C.head_dim + dim[None, :]
    else:
        offset = page * block_stride + row % C.page * C.head_dim
        pointers = cache + offset[:, None] + dim[None, :]
    if MASKED and C.padded_dim != C.head_dim:
        elements = tl.load(pointers, mask=inside[:, None] & (dim < C.head_dim)[None, :], other=0.0)
    elif MASKED:
        elements = tl.load(pointers, mask=inside[:, None], other=0.0)
    elif C.padded_dim != C.head_dim:
        elements = tl.load(pointers, mask=(dim < C.head_dim)[None, :], other=0.0)
    else:
        elements = tl.load(pointers)
    return elements


@triton.jit
def operand(elements, C):
    """Cache elements as a matrix product wants them. float8_e4m3fn is exact in float16, which has more bits.

    A device without the conversion moves exponent and mantissa to float16's places, which divides by 2⁸: the biases are
    7 and 15. :func:`cache_scale` multiplies by that again.
    """
    if C.scaled and C.native_fp8:
        elements = elements.to(tl.float16)
    elif C.scaled:
        bits = elements.to(tl.uint16)
        elements = ((bits & 0x7F) << 7 | (bits & 0x80) << 8).to(tl.float16, bitcast=True)
    return elements


@triton.jit
def cache_scale(scales, index, C):
    """What an element of the cache counts; ``index`` into ``[2, kv_heads]``."""
    if not C.scaled:
        scale = 1.0
    elif C.native_fp8:
        scale = tl.load(scales + index)
    else:
        scale = tl.load(scales + index) * 256.0
    return scale
