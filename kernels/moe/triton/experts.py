# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
"""The experts' products: gate and up with the activation, down with the routing weights, and the sum for each token.

A program of a product takes one block of rows, all of one expert, and ``block_n`` columns; blocks that the sorting left
unused end at once. Blocks have 16 rows while experts have few tokens each, and up to 128 when they have many: few rows
are bound by reading the experts' weights, once each; many by the tensor cores.

With ``C = tokens * top_k`` choices, ``E`` experts in use, hidden size ``H`` and intermediate size ``I``, in bytes of
``s`` per value:

=========== =================================================== ==================
product     moves                                               operations
=========== =================================================== ==================
gate and up ``E·2I·H·s`` weights, ``C·H·s`` in, ``C·I·s`` out   ``4·C·I·H``
down        ``E·H·I·s`` weights, ``C·I·s`` in, ``C·H·s`` out    ``2·C·I·H``
sum         ``C·H·s`` in, ``tokens·H·s`` out                    ``C·H``
=========== =================================================== ==================

Qwen3-30B-A3B (H 2048, I 768, 8 of 128, bfloat16): one token reads 75.5 MB in a layer, at least 17.6 µs at 4.3 TB/s;
8,192 tokens are 618 GFLOP, at least 0.79 ms at 780 TFLOP/s. Nothing here has been measured.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.activation.triton import share
from kernels.gpu import device_of, tile_shape
from kernels.gpu.tiles import TileShape
from kernels.moe.activation import GatedActivation
from kernels.moe.router import Routing
from kernels.moe.triton.sort import sort_tokens

_SUMMED = 4096


def experts_forward(
    x: Tensor,
    gate_up: Tensor,
    down: Tensor,
    routing: Routing,
    activation: GatedActivation,
    *,
    gate_up_bias: Tensor | None,
    down_bias: Tensor | None,
    residual: Tensor | None,
) -> Tensor:
    """See :func:`kernels.moe.experts_forward`."""
    (tokens, hidden), top_k = x.shape, routing.experts.shape[1]
    num_experts, _, intermediate = down.shape
    out = torch.empty_like(x)
    if tokens == 0:
        return out
    block_m = block_rows(tokens * top_k, num_experts, x.element_size())
    rows = _sorted(routing.experts, num_experts, block_m)
    blocks = rows.block_experts.numel()
    common = {"TOP_K": top_k, "BLOCK_M": block_m}

    tile = tile_shape("moe", "gate_up", case(x, block_m), device_of(x))
    gated = x.new_empty((blocks * block_m, intermediate))
    _gate_up[(blocks * triton.cdiv(intermediate, tile["block_n"]),)](
        x, gate_up, gate_up_bias, *rows, gated, tokens, blocks, hidden, intermediate,
        activation.alpha, activation.limit, activation.offset, KIND=activation.kind,
        EVEN=hidden % tile["block_k"] == 0, **common, **_constants(tile),
    )  # fmt: skip

    tile = tile_shape("moe", "down", case(x, block_m), device_of(x))
    terms = x.new_empty((tokens * top_k, hidden))
    _down[(blocks * triton.cdiv(hidden, tile["block_n"]),)](
        gated, down, down_bias, *rows, routing.weights, terms, tokens, blocks, intermediate, hidden,
        EVEN=intermediate % tile["block_k"] == 0, **common, **_constants(tile),
    )  # fmt: skip

    slots = triton.next_power_of_2(top_k)
    block_n = max(128, min(triton.next_power_of_2(hidden), _SUMMED // slots))
    _combine[tokens, triton.cdiv(hidden, block_n)](
        terms, residual, out, hidden, TOP_K=top_k, SLOTS=slots, BLOCK_N=block_n, num_warps=4
    )
    return out


def block_rows(choices: int, num_experts: int, element_size: int) -> int:
    """Rows of a block: as many as an expert has on average, so that most are used and few experts need two blocks."""
    # Float32 is multiplied on the ordinary cores, whose registers hold no larger tile.
    most, rows = (128 if element_size == 2 else 32), 16
    while rows < most and rows * num_experts < choices:
        rows *= 2
    return rows


def case(x: Tensor, block_m: int) -> str:
    """Which entry of the table of tile shapes serves this."""
    return f"{8 * x.element_size()}bit_m{block_m}"


class _Rows(NamedTuple):
    """What a row of a block is: an entry of ``order``, or, if that is None, the first row of each block is the choice
    of the block's number and the others are none."""

    order: Tensor | None
    block_experts: Tensor


def _sorted(experts: Tensor, num_experts: int, block_m: int) -> _Rows:
    # The choices of a single token all differ: each is a block of its own, in any order.
    if experts.shape[0] == 1:
        return _Rows(None, experts[0])
    return _Rows(*sort_tokens(experts, num_experts, block_m))


def _constants(tile: TileShape) -> dict[str, int]:
    return {
        "BLOCK_N": tile["block_n"],
        "BLOCK_K": tile["block_k"],
        "GROUP": tile["group"],
        "STAGES": tile["num_stages"],
        "num_warps": tile["num_warps"],
    }


@triton.jit(do_not_specialize=["tokens", "blocks"])
def _gate_up(
    x, weight, bias, order, block_experts, out, tokens, blocks, depth, columns, alpha, limit, offset,
    KIND: tl.constexpr, EVEN: tl.constexpr, TOP_K: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr, GROUP: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    block, tile = _block_and_tile(blocks, tl.cdiv(columns, BLOCK_N), GROUP)
    expert = tl.load(block_experts + block)
    if expert < 0:
        return
    choice = _choices(order, block, tokens * TOP_K, BLOCK_M)
    exists = choice < tokens * TOP_K
    column = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    # Columns that there are not read the last: no load needs a mask for them, and they are not stored. Rows that there
    # are not read nothing: in a decode step they are most rows of a block.
    token = (choice // TOP_K).to(tl.int64)
    start = expert.to(tl.int64) * 2 * columns * depth + tl.minimum(column, columns - 1).to(tl.int64) * depth
    half = tl.cast(columns, tl.int64) * depth
    gate = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    up = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in tl.range(0, depth, BLOCK_K, num_stages=STAGES):
        k = (step + tl.arange(0, BLOCK_K))[None, :]
        values = tl.load(x + token[:, None] * depth + k, exists[:, None] & (k < depth), other=0.0)
        gate = tl.dot(values, _weight(weight + start[:, None] + k, k, depth, EVEN).T, gate, input_precision="ieee")
        up = tl.dot(values, _weight(weight + half + start[:, None] + k, k, depth, EVEN).T, up, input_precision="ieee")
    if bias is not None:
        at = bias + expert.to(tl.int64) * 2 * columns + column
        gate += tl.load(at, column < columns, other=0.0).to(tl.float32)[None, :]
        up += tl.load(at + columns, column < columns, other=0.0).to(tl.float32)[None, :]
    gate = tl.minimum(gate, limit)
    up = tl.minimum(tl.maximum(up, -limit), limit)
    result = gate * share(alpha * gate, KIND) * (up + offset)
    at = out + (block * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)[:, None] * columns + column[None, :]
    tl.store(at, result.to(out.dtype.element_ty), exists[:, None] & (column < columns)[None, :])


@triton.jit(do_not_specialize=["tokens", "blocks"])
def _down(
    gated, weight, bias, order, block_experts, routing_weights, terms, tokens, blocks, depth, columns,
    EVEN: tl.constexpr, TOP_K: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    block, tile = _block_and_tile(blocks, tl.cdiv(columns, BLOCK_N), GROUP)
    expert = tl.load(block_experts + block)
    if expert < 0:
        return
    choice = _choices(order, block, tokens * TOP_K, BLOCK_M)
    exists = choice < tokens * TOP_K
    column = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    row = (block * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    start = expert.to(tl.int64) * columns * depth + tl.minimum(column, columns - 1).to(tl.int64) * depth
    product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in tl.range(0, depth, BLOCK_K, num_stages=STAGES):
        k = (step + tl.arange(0, BLOCK_K))[None, :]
        values = tl.load(gated + row[:, None] * depth + k, exists[:, None] & (k < depth), other=0.0)
        product = tl.dot(
            values, _weight(weight + start[:, None] + k, k, depth, EVEN).T, product, input_precision="ieee"
        )
    if bias is not None:
        at = bias + expert.to(tl.int64) * columns + column
        product += tl.load(at, column < columns, other=0.0).to(tl.float32)[None, :]
    product *= tl.load(routing_weights + choice, exists, other=0.0)[:, None]
    at = terms + choice.to(tl.int64)[:, None] * columns + column[None, :]
    tl.store(at, product.to(terms.dtype.element_ty), exists[:, None] & (column < columns)[None, :])


@triton.jit
def _combine(terms, residual, out, columns, TOP_K: tl.constexpr, SLOTS: tl.constexpr, BLOCK_N: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    slot = tl.arange(0, SLOTS)[:, None]
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    at = terms + (token * TOP_K + slot) * columns + column[None, :]
    total = tl.sum(tl.load(at, (slot < TOP_K) & (column < columns)[None, :], other=0.0).to(tl.float32), 0)
    at = token * columns + column
    if residual is not None:
        total += tl.load(residual + at, column < columns, other=0.0).to(tl.float32)
    tl.store(out + at, total.to(out.dtype.element_ty), column < columns)


@triton.jit
def _block_and_tile(blocks, tiles, GROUP: tl.constexpr):
    """Neighbouring programs share what they read: ``GROUP`` blocks of rows go through all columns together."""
    program = tl.program_id(0)
    first = program // (GROUP * tiles) * GROUP
    group = tl.minimum(blocks - first, GROUP)
    within = program % (GROUP * tiles)
    return first + within % group, within // group


@triton.jit
def _choices(order, block, choices, BLOCK_M: tl.constexpr):
    """The choice that each row of a block is; ``choices``, their number, for none."""
    row = tl.arange(0, BLOCK_M)
    return tl.where(row == 0, block, choices) if order is None else tl.load(order + block * BLOCK_M + row)


@triton.jit
def _weight(at, k, depth, EVEN: tl.constexpr):
    if EVEN:
        return tl.load(at)
    return tl.load(at, k < depth, other=0.0)
