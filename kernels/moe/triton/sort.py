# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
"""Sorting by counting: no comparison sort, no atomics, nothing read back by the host.

A program takes a chunk of choices. It counts, for each, how many earlier ones of the chunk go to the same expert; with
where the expert's run begins and how many of it lie in earlier chunks, that is the place. One chunk needs one launch;
more need a launch before it that counts each chunk's choices by expert. All sizes and the number of programs depend on
shapes only, so a CUDA graph can hold it.

Reads 4 bytes for each choice and writes 4, and ``chunks x experts`` counts once, to read them in each program: at
65,536 choices of 256 experts 0.5 MB from memory and 16 MB from the L2 cache (not measured); in a decode step one short
launch.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu import device_of, tile_shape
from kernels.moe.order import SortedTokens, max_blocks

_FEW = 128
_COMPARED = 8192


def sort_tokens(experts: Tensor, num_experts: int, block_m: int) -> SortedTokens:
    """See :func:`kernels.moe.sort_tokens`."""
    choices = experts.numel()
    blocks = max_blocks(choices, num_experts, block_m)
    order = experts.new_empty((blocks * block_m,))
    block_experts = experts.new_empty((blocks,))
    if choices == 0:
        return SortedTokens(order, block_experts)
    tile = tile_shape("moe", "sort", "any", device_of(experts))
    chunk = tile["chunk"] if choices > _FEW else _FEW
    chunks = triton.cdiv(choices, chunk)
    padded = triton.next_power_of_2(num_experts)
    step = max(16, _COMPARED // max(chunk, padded))
    counts = None
    if chunks > 1:
        counts = experts.new_empty((chunks, padded))
        _count[(chunks,)](experts, counts, choices, CHUNK=chunk, EXPERTS=padded, STEP=step, num_warps=tile["num_warps"])
    _place[(chunks,)](
        experts, counts, order, block_experts, choices, chunks, blocks, num_experts,
        CHUNK=chunk, EXPERTS=padded, STEP=step, BLOCK_M=block_m, num_warps=tile["num_warps"],
    )  # fmt: skip
    return SortedTokens(order, block_experts)


@triton.jit(do_not_specialize=["choices"])
def _count(experts, counts, choices, CHUNK: tl.constexpr, EXPERTS: tl.constexpr, STEP: tl.constexpr):
    first = tl.program_id(0) * CHUNK
    found = _counted(experts, first, tl.minimum(first + CHUNK, choices), EXPERTS, STEP)
    tl.store(counts + tl.program_id(0) * EXPERTS + tl.arange(0, EXPERTS), found)


@triton.jit(do_not_specialize=["choices", "chunks", "blocks"])
def _place(
    experts, counts, order, block_experts, choices, chunks, blocks, num_experts,
    CHUNK: tl.constexpr, EXPERTS: tl.constexpr, STEP: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    first = program * CHUNK
    if counts is None:
        total = _counted(experts, 0, choices, EXPERTS, STEP)
        before = tl.zeros((EXPERTS,), tl.int32)
    else:
        total, before = _summed(counts, program, chunks, EXPERTS)
    blocks_of = (total + BLOCK_M - 1) // BLOCK_M
    end_block = tl.cumsum(blocks_of, 0)
    start = (end_block - blocks_of) * BLOCK_M

    choice = first + tl.arange(0, CHUNK)
    inside = choice < choices
    expert = tl.load(experts + choice, inside, other=0)
    rank = tl.gather(before, expert, 0) + _earlier(experts, expert, choice, first, choices, CHUNK, STEP)
    place = tl.gather(start, expert, 0) + rank
    tl.store(order + place, choice, inside)
    # The first row of each block names the block's expert.
    tl.store(block_experts + place // BLOCK_M, expert, inside & (rank % BLOCK_M == 0))

    _pad(order, start, total, blocks_of, choices, program, chunks, num_experts, EXPERTS, BLOCK_M)
    for tile in range(tl.sum(blocks_of, 0) // EXPERTS + program, tl.cdiv(blocks, EXPERTS), chunks):
        block = tile * EXPERTS + tl.arange(0, EXPERTS)
        tl.store(block_experts + block, -1, (block >= tl.sum(blocks_of, 0)) & (block < blocks))


@triton.jit
def _pad(
    order, start, total, blocks_of, choices, program, chunks, num_experts, EXPERTS: tl.constexpr, BLOCK_M: tl.constexpr
):
    """Fill the ends of some experts' runs, shared out among the programs."""
    share = tl.cdiv(num_experts, chunks)
    mine = tl.arange(0, EXPERTS) // share == program
    for begin in range(0, BLOCK_M, 16):
        row = total[:, None] + begin + tl.arange(0, 16)[None, :]
        tl.store(order + start[:, None] + row, choices, mine[:, None] & (row < (blocks_of * BLOCK_M)[:, None]))


@triton.jit
def _counted(experts, first, last, EXPERTS: tl.constexpr, STEP: tl.constexpr):
    """How many of the choices ``first`` to ``last - 1`` go to each expert."""
    found = tl.zeros((EXPERTS,), tl.int32)
    for begin in range(first, last, STEP):
        choice = begin + tl.arange(0, STEP)
        expert = tl.load(experts + choice, choice < last, other=-1)
        found += tl.sum((expert[None, :] == tl.arange(0, EXPERTS)[:, None]).to(tl.int32), 1)
    return found


@triton.jit
def _earlier(experts, expert, choice, first, choices, CHUNK: tl.constexpr, STEP: tl.constexpr):
    """How many choices from ``first`` on, but before each, go to the same expert."""
    found = tl.zeros((CHUNK,), tl.int32)
    last = tl.minimum(first + CHUNK, choices)
    for begin in range(first, last, STEP):
        other = begin + tl.arange(0, STEP)
        theirs = tl.load(experts + other, other < last, other=-1)
        found += tl.sum(((theirs[None, :] == expert[:, None]) & (other[None, :] < choice[:, None])).to(tl.int32), 1)
    return found


@triton.jit
def _summed(counts, program, chunks, EXPERTS: tl.constexpr):
    """Choices of each expert: in all chunks, and in those before this program's."""
    total = tl.zeros((EXPERTS,), tl.int32)
    before = tl.zeros((EXPERTS,), tl.int32)
    for begin in range(0, chunks, 16):
        chunk = begin + tl.arange(0, 16)[:, None]
        found = tl.load(counts + chunk * EXPERTS + tl.arange(0, EXPERTS)[None, :], chunk < chunks, other=0)
        total += tl.sum(found, 0)
        before += tl.sum(tl.where(chunk < program, found, 0), 0)
    return total, before
