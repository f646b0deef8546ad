"""How often a request's tokens are in its output, and which are in its prompt: what penalties go by.

``num_tokens`` ids in, as many atomic operations on the row's ``counts`` ``[vocab]`` int32, once in a request's life.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu import device_of, tile_shape
from kernels.sampling.rows import SamplingState
from kernels.sampling.triton.row import COUNTS, IN_PROMPT, PROMPT_LENGTH, integer, own


def count_tokens(rows: Tensor, lengths: Tensor, longest: int, state: SamplingState, vocab_size: int) -> None:
    """Count the tokens that requests have when they are admitted.

    :param rows: ``[n]`` int32, rows with ``counts``, which are 0.
    :param lengths: ``[n]`` int32, how many tokens each has, at most ``longest``. Ids outside the vocabulary do not
        count.
    """
    tile = tile_shape("sampling", "count", "all", device_of(state.tokens))
    _count[(rows.shape[0], triton.cdiv(longest, tile["tile"]))](
        rows,
        lengths,
        state.parameters,
        state.tokens,
        state.tokens.stride(0),
        vocab_size,
        TILE=tile["tile"],
        num_warps=tile["num_warps"],
    )


@triton.jit(do_not_specialize_on_alignment=["rows", "lengths"])  # type: ignore[untyped-decorator]
def _count(
    rows: tl.tensor,
    lengths: tl.tensor,
    parameters: tl.tensor,
    tokens: tl.tensor,
    stride: tl.tensor,
    vocab: tl.tensor,
    TILE: tl.constexpr,
) -> None:
    row = tl.load(rows + tl.program_id(0))
    at = tl.program_id(1) * TILE + tl.arange(0, TILE)
    mask = at < tl.load(lengths + tl.program_id(0))
    token = tl.load(tokens + row.to(tl.int64) * stride + at, mask=mask, other=-1)
    known = (token >= 0) & (token < vocab)
    in_prompt = at < integer(parameters, row, PROMPT_LENGTH)
    counts = own(parameters, row, COUNTS) + token
    tl.atomic_or(counts, IN_PROMPT, mask=known & in_prompt, sem="relaxed")
    tl.atomic_add(counts, 1, mask=known & (in_prompt == 0), sem="relaxed")
