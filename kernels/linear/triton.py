# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
"""Products of a few rows: the weight is read once, as fast as the memory gives it, and the rows cost nothing beside it.

A program takes ``block_n`` rows of the weight ``[columns, depth]``, or of a part of their depth, and walks along them
``block_k`` values at a time, each thread with 128-bit loads. One row of ``x`` is multiplied on the ordinary cores: each
thread keeps its own sums and they meet once, at the end. Up to 16 rows are multiplied on the tensor cores (float32 on
the ordinary ones, in full precision), in a tile of 16 rows of which the missing ones are zeros.

Where ``columns / block_n`` programs would leave multiprocessors idle, the depth is split among several programs; their
sums go to memory in float32 and a second kernel adds them in one fixed order, so that a product is the same, bit by
bit, whenever it is repeated.

What is moved is the weight, ``columns x depth x size`` bytes; at 2 operations for each weight and row, 16 rows are 16
operations per byte of bfloat16, less than a tenth of what would keep the tensor cores of an H100 busy. The floors for
the products of Llama 3 8B in bfloat16, at the 4.3 TB/s that copying reaches on an H200 (nothing here was measured):

============================= ========= ===========
weight                        MB        least µs
============================= ========= ===========
qkv, 4096 → 6144               50.3      11.7
attention output, 4096 → 4096  33.6       7.8
gate and up, 4096 → 2 · 14336 234.9      54.6
down, 14336 → 4096            117.4      27.3
vocabulary, 4096 → 128256    1050.7     244.3
============================= ========= ===========
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.activation.kinds import GatedKind
from kernels.activation.triton import activate
from kernels.gpu import device_of, tile_shape
from kernels.gpu.tiles import TileShape

MOST_ROWS = 16
"""Rows that :func:`linear` and :func:`gated` take at most: the fewest that a tensor core multiplies."""

_ROWS = tl.constexpr(MOST_ROWS)
_NARROW = 8192
_MOST_SPLITS = 16
_REDUCED = 512


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, *, out_dtype: torch.dtype
) -> Tensor:
    """``x @ weight.T + bias + residual``, summed in float32 and rounded once.

    :param x: ``[rows, depth]``, contiguous, 1 to 16 rows.
    :param weight: ``[columns, depth]``, contiguous, of the dtype of ``x``.
    :param residual: ``[rows, columns]``, contiguous, or None; overwritten with the result if its dtype is that.
    :returns: ``[rows, columns]``.
    :raises ValueError: what is given does not fit the weight.
    """
    columns = weight.shape[0]
    if residual is not None and residual.dtype == out_dtype:
        out = residual
    else:
        out = x.new_empty((x.shape[0], columns), dtype=out_dtype)
    _launch(x, weight, bias, residual, out, gate=None)
    return out


def gated(x: Tensor, weight: Tensor, bias: Tensor | None, kind: GatedKind) -> Tensor:
    """``kind(gate) * up`` of ``x @ weight.T + bias``, summed in float32 and rounded once.

    :param x: ``[rows, depth]``, contiguous, 1 to 16 rows.
    :param weight: ``[2 * intermediate, depth]``, contiguous, the gate's half first, of the dtype of ``x``.
    :returns: ``[rows, intermediate]``.
    """
    out = x.new_empty((x.shape[0], weight.shape[0] // 2))
    _launch(x, weight, bias, None, out, gate=kind)
    return out


class _Grid(NamedTuple):
    """How the weight is divided: ``tiles`` blocks of columns, each in ``splits`` parts of ``part`` values of depth."""

    tiles: int
    splits: int
    part: int


def _launch(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, out: Tensor, *, gate: GatedKind | None
) -> None:
    _check(x, weight, residual)
    (rows, depth), columns = x.shape, out.shape[1]
    device = device_of(x)
    kernel = ("gated_" if gate else "") + ("row" if rows == 1 else "rows")
    tile = tile_shape("linear", kernel, case(weight), device)
    grid = _divided(columns, depth, tile, device.multiprocessors)
    sums = x.new_empty((grid.splits, rows, weight.shape[0]), dtype=torch.float32) if grid.splits > 1 else None
    constants: dict[str, Any] = {
        "GATE": gate,
        "EVEN": depth % tile["block_k"] == 0,
        "BLOCK_N": tile["block_n"],
        "BLOCK_K": tile["block_k"],
        "STAGES": tile["num_stages"],
        "num_warps": tile["num_warps"],
    }
    terms = (bias, residual) if sums is None else (None, None)
    form = _row if rows == 1 else _rows
    form[grid.tiles, grid.splits](x, weight, *terms, out, sums, rows, columns, depth, grid.part, **constants)
    if sums is not None:
        _add_parts[rows, triton.cdiv(columns, _REDUCED)](
            sums, bias, residual, out, rows, columns, GATE=gate, SPLITS=grid.splits, BLOCK_N=_REDUCED, num_warps=4
        )


def _check(x: Tensor, weight: Tensor, residual: Tensor | None) -> None:
    columns, depth = weight.shape
    fits = 1 <= x.shape[0] <= MOST_ROWS and x.shape[1] == depth
    if not fits or x.dtype != weight.dtype or not x.is_contiguous():
        raise ValueError(
            f"x is {x.dtype} {list(x.shape)}; contiguous {weight.dtype} [1..{MOST_ROWS}, {depth}] is needed"
        )
    if residual is not None and (residual.shape != (x.shape[0], columns) or not residual.is_contiguous()):
        raise ValueError(f"residual is {list(residual.shape)}; contiguous [{x.shape[0]}, {columns}] is needed")


def case(weight: Tensor) -> str:
    """Which entry of the table of tile shapes serves a weight."""
    return f"{8 * weight.element_size()}bit_{'narrow' if weight.shape[0] <= _NARROW else 'wide'}"


def _divided(columns: int, depth: int, tile: TileShape, multiprocessors: int) -> _Grid:
    """Split the depth, by powers of two, while all programs still run at once, ``programs`` on a multiprocessor, and no
    part is shorter than ``least_part``: a second wave that is not full leaves the memory idle for longer than the
    first is short of programs."""
    tiles, splits = triton.cdiv(columns, tile["block_n"]), 1
    while (
        tiles * 2 * splits <= tile["programs"] * multiprocessors
        and depth // (2 * splits) >= tile["least_part"]
        and splits < _MOST_SPLITS
    ):
        splits *= 2
    return _Grid(tiles, splits, triton.cdiv(triton.cdiv(depth, splits), tile["block_k"]) * tile["block_k"])


@triton.jit(do_not_specialize=["rows"])
def _row(
    x, weight, bias, residual, out, sums, rows, columns, depth, part,
    GATE: tl.constexpr, EVEN: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    # A column past the last reads the last: no load needs a mask for it, and it is not stored.
    start = tl.minimum(column, columns - 1).to(tl.int64) * depth
    k = tl.arange(0, BLOCK_K)
    other_half = tl.cast(columns, tl.int64) * depth
    first = tl.program_id(1) * part
    product = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
    up = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
    for step in tl.range(first, tl.minimum(first + part, depth), BLOCK_K, num_stages=STAGES):
        values = _loaded(x + step + k, step + k, depth, EVEN, "evict_last").to(tl.float32)[None, :]
        at = start[:, None] + (step + k)[None, :]
        inside = (step + k)[None, :]
        product += _loaded(weight + at, inside, depth, EVEN, "evict_first").to(tl.float32) * values
        if GATE is not None:
            up += _loaded(weight + other_half + at, inside, depth, EVEN, "evict_first").to(tl.float32) * values
    _finish(
        tl.sum(product, 1)[None, :], tl.sum(up, 1)[None, :], bias, residual, out, sums,
        tl.arange(0, 1), column, rows, columns, GATE,
    )  # fmt: skip


@triton.jit(do_not_specialize=["rows"])
def _rows(
    x, weight, bias, residual, out, sums, rows, columns, depth, part,
    GATE: tl.constexpr, EVEN: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.arange(0, _ROWS)
    start = tl.minimum(column, columns - 1).to(tl.int64) * depth
    k = tl.arange(0, BLOCK_K)
    other_half = tl.cast(columns, tl.int64) * depth
    first = tl.program_id(1) * part
    product = tl.zeros((_ROWS, BLOCK_N), tl.float32)
    up = tl.zeros((_ROWS, BLOCK_N), tl.float32)
    for step in tl.range(first, tl.minimum(first + part, depth), BLOCK_K, num_stages=STAGES):
        inside = (step + k)[None, :]
        values = tl.load(x + row[:, None] * depth + inside, (row < rows)[:, None] & (inside < depth), other=0.0)
        at = start[:, None] + inside
        tile = _loaded(weight + at, inside, depth, EVEN, "evict_first")
        product = tl.dot(values, tile.T, product, input_precision="ieee")
        if GATE is not None:
            tile = _loaded(weight + other_half + at, inside, depth, EVEN, "evict_first")
            up = tl.dot(values, tile.T, up, input_precision="ieee")
    _finish(product, up, bias, residual, out, sums, row, column, rows, columns, GATE)


@triton.jit(do_not_specialize=["rows"])
def _add_parts(
    sums, bias, residual, out, rows, columns, GATE: tl.constexpr, SPLITS: tl.constexpr, BLOCK_N: tl.constexpr
):
    row = tl.program_id(0) + tl.arange(0, 1)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = (column < columns)[None, :]
    width = columns * 2 if GATE is not None else columns
    part = tl.arange(0, SPLITS)[:, None] * rows + row[:, None]
    at = sums + part.to(tl.int64) * width + column[None, :]
    product = tl.sum(tl.load(at, inside, other=0.0), 0)[None, :]
    up = product
    if GATE is not None:
        up = tl.sum(tl.load(at + columns, inside, other=0.0), 0)[None, :]
    _finish(product, up, bias, residual, out, None, row, column, rows, columns, GATE)


@triton.jit
def _loaded(at, k, depth, EVEN: tl.constexpr, KEEP: tl.constexpr):
    """The values there, zeros past the depth. A weight is read once and should not push out what is read again."""
    if EVEN:
        return tl.load(at, eviction_policy=KEEP)
    return tl.load(at, k < depth, other=0.0, eviction_policy=KEEP)


@triton.jit
def _finish(product, up, bias, residual, out, sums, row, column, rows, columns, GATE: tl.constexpr):
    """Store sums over a part of the depth in ``sums``, or, if that is None, the result in ``out``."""
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    if sums is not None:
        width = columns * 2 if GATE is not None else columns
        at = sums + (tl.program_id(1) * rows + row).to(tl.int64)[:, None] * width + column[None, :]
        tl.store(at, product, inside)
        if GATE is not None:
            tl.store(at + columns, up, inside)
    else:
        if bias is not None:
            product += tl.load(bias + column, column < columns, other=0.0).to(tl.float32)[None, :]
            if GATE is not None:
                up += tl.load(bias + columns + column, column < columns, other=0.0).to(tl.float32)[None, :]
        if GATE is not None:
            product = activate(product, GATE) * up
        at = row.to(tl.int64)[:, None] * columns + column[None, :]
        if residual is not None:
            product += tl.load(residual + at, inside, other=0.0).to(tl.float32)
        tl.store(out + at, product.to(out.dtype.element_ty), inside)
