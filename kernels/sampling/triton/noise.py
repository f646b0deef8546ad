"""Gumbel noise that is a function of a request's seed, of how many tokens it has generated, and of the token's id.

Token ``t`` takes word ``t % 4`` of Philox4x32-10 at the counter ``(t // 4, generated, 0, 0)`` under the seed. The noise
is in units of ln 2, but for a constant that is the same for all tokens.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra import libdevice

_INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit  # type: ignore[untyped-decorator]
def gumbel(seed: tl.tensor, generated: tl.tensor, first: tl.tensor, TILE: tl.constexpr) -> tl.tensor:
    """``[TILE]`` float32, of the tokens from ``first`` on, a multiple of 4. A thread that holds four adjacent tokens
    computes one block for them."""
    counter = (first // 4 + tl.arange(0, TILE // 4)).to(tl.uint32)
    zero = tl.zeros_like(counter)
    a, b, c, d = tl.philox(seed, counter, zero + generated.to(tl.uint32), zero, zero)
    return -_log2(_exponential(tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), [TILE])))


@triton.jit  # type: ignore[untyped-decorator]
def gumbel_of(seed: tl.tensor, generated: tl.tensor, tokens: tl.tensor) -> tl.tensor:
    """Float32 of the shape of ``tokens``, which may be any; a block for each."""
    counter = (tokens // 4).to(tl.uint32)
    zero = tl.zeros_like(counter)
    a, b, c, d = tl.philox(seed, counter, zero + generated.to(tl.uint32), zero, zero)
    word = tokens % 4
    return -_log2(_exponential(tl.where(word < 2, tl.where(word == 0, a, b), tl.where(word == 2, c, d))))


@triton.jit  # type: ignore[untyped-decorator]
def _exponential(bits: tl.tensor) -> tl.tensor:
    """``-log2(1 - u)`` for the uniform ``u = (bits + 1/2) / 2**32``.

    The least of these decide who is drawn, so small ones must be right: the logarithm of ``1 - u`` in float32 would be
    0 once in 2**24 times, and a token with such luck would beat all others. Below 1/16 the series is right: the first
    term left out, u⁶ / 6, is less than float32's rounding. The largest ``u`` is kept from rounding to 1.
    """
    u = tl.minimum((bits.to(tl.float32) + 0.5) * 2.3283064365386963e-10, 0.99999994)
    series = u * (1.4426950408889634 + u * (0.7213475204444817 + u * (0.48089834696298783 + _rest(u))))
    return tl.where(u < 0.0625, series, -_log2(1 - u))


@triton.jit  # type: ignore[untyped-decorator]
def _rest(u: tl.tensor) -> tl.tensor:
    """The fourth and fifth terms of the series, over u³, in logarithms to base 2."""
    return u * (0.36067376022224085 + u * 0.28853900817779268)


@triton.jit  # type: ignore[untyped-decorator]
def _log2(x: tl.tensor) -> tl.tensor:
    """The hardware's logarithm: one instruction, Triton's own takes twenty. It is off by 2**-22, absolutely between
    1/2 and 2 and relatively elsewhere, which is nothing to noise. The interpreter knows none."""
    if _INTERPRETED:
        return tl.log2(x)
    return libdevice.fast_log2f(x)
