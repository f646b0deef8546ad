# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="untyped-decorator"
"""Attention's arithmetic on one tile of keys: scores, their variants, the running softmax (Milakov & Gimelshein 2018).

Exponentials are powers of two, which is what the hardware has: log₂ e is multiplied into the scale once.

``peak`` starts at a finite number: a row that sees nothing of a tile then has weights 2^(-∞ - peak) = 0 and keeps its
sums, where -∞ - (-∞) would be NaN.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)
LOWEST: tl.constexpr = tl.constexpr(-1e30)


@triton.jit
def load_query(pointers, present, scale, C):
    """The program's rows, ``[rows, padded_dim]``, and by what each one's scores are to be multiplied, ``[rows]``.

    :param scale: of all scores, log₂ e included.

    Beside a float8 cache products are of float16. Rows are divided by a power of two first, so that their largest
    element is 1 to 2; then bfloat16 loses nothing but digits of elements 2¹⁴ times smaller than that.
    """
    dim = tl.arange(0, C.padded_dim)
    query = tl.load(pointers[:, None] + dim[None, :], mask=present[:, None] & (dim < C.head_dim)[None, :], other=0.0)
    factor = tl.full([C.rows], 1.0, tl.float32) * scale
    if C.scaled:
        query = query.to(tl.float32)
        largest = tl.max(tl.abs(query), 1)
        largest = tl.where(largest > 1e-30, largest, 1.0)
        power = (largest.to(tl.int32, bitcast=True) & 0x7F800000).to(tl.float32, bitcast=True)
        query = (query / power[:, None]).to(tl.float16)
        factor = factor * power
    return query, factor


@triton.jit
def scores_of(query, key, factor, slope, distance, C):
    """``[rows, tile]`` and the factor that is still to be multiplied into them.

    :param slope: ``[rows]``, times log₂ e.
    :param distance: ``[rows, tile]`` from query to key, negative to the past.

    tanh(x) is 1 - 2 / (e^2x + 1), which saturates where the quotient of two exponentials would be ∞ / ∞.
    """
    scores = tl.dot(query, tl.trans(key), input_precision=C.precision)
    if C.softcap is not None:
        power = tl.exp2(scores * (factor * (2.0 / C.softcap))[:, None])
        scores = C.softcap * LOG2E * (1.0 - 2.0 / (power + 1.0))
        factor = tl.full([C.rows], 1.0, tl.float32)
    if C.alibi:
        scores = scores * factor[:, None] + slope[:, None] * distance
        factor = tl.full([C.rows], 1.0, tl.float32)
    return scores, factor


@triton.jit
def weigh(scores, factor, peak, total):
    """A tile's weights ``[rows, tile]``, relative to ``2^peak`` with the new peak, and by what sums must fade that are
    relative to the old one: ``weights, fade, peak, total``."""
    higher = tl.maximum(peak, tl.max(scores, 1) * factor)
    weights = tl.exp2(scores * factor[:, None] - higher[:, None])
    fade = tl.exp2(peak - higher)
    return weights, fade, higher, total * fade + tl.sum(weights, 1)


@triton.jit
def add_values(acc, fade, weights, values, C):
    """``acc [rows, padded_dim]``, the sum of values times weights, with one more tile."""
    return tl.dot(weights.to(values.dtype), values, acc * fade[:, None], input_precision=C.precision)


@triton.jit
def with_sink(peak, total, sink):
    """By what sums must fade beside one more key without a value, and the total with it; ``sink`` is its score, times
    log₂ e."""
    higher = tl.maximum(peak, sink)
    fade = tl.exp2(peak - higher)
    return fade, total * fade + tl.exp2(sink - higher)


@triton.jit
def inverse(total):
    """1 / total, and 1 where a row saw nothing, whose sums are zero."""
    return 1.0 / tl.where(total == 0.0, 1.0, total)
