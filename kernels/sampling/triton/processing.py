"""Constraints, bias and penalties, in place.

Of a row that asks for nothing no byte is read; of one that adjusts single tokens, the tiles they are in; of one with
penalties or allowed tokens, all: 8 bytes per token read and written, 4 for its count, 1/8 for its permission.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu import device_of, tile_shape
from kernels.sampling.rows import SamplingState
from kernels.sampling.triton.parts import cut
from kernels.sampling.triton.row import (
    ADJUSTS,
    ALLOWED,
    ALLOWS,
    COUNTS,
    FLAGS,
    FREQUENCY_PENALTY,
    IN_PROMPT,
    MIN_TOKENS,
    PENALIZES,
    PRESENCE_PENALTY,
    PROMPT_LENGTH,
    REPETITION_PENALTY,
    RULES,
    integer,
    number,
    own,
)

_IDS = tl.constexpr(128)
"""Ids of a list that are looked at together."""


def process_logits(logits: Tensor, row_of: Tensor, position: Tensor, state: SamplingState) -> None:
    """See :func:`kernels.sampling.process_logits`."""
    n, vocab = logits.shape
    if not n:
        return
    device = device_of(logits)
    tile = tile_shape("sampling", "process", "all", device)
    parts = cut(n, triton.cdiv(vocab, tile["tile"]), device, tile["programs_per_multiprocessor"])
    _process[(n, parts.number)](
        logits,
        logits.stride(0),
        row_of,
        position,
        state.parameters,
        state.tokens,
        state.tokens.stride(0),
        vocab,
        parts.tiles,
        TILE=tile["tile"],
        num_warps=tile["num_warps"],
    )


@triton.jit(do_not_specialize=["tiles"], do_not_specialize_on_alignment=["row_of", "position"])  # type: ignore[untyped-decorator]
def _process(
    logits: tl.tensor,
    stride: tl.tensor,
    row_of: tl.tensor,
    position: tl.tensor,
    parameters: tl.tensor,
    tokens: tl.tensor,
    tokens_stride: tl.tensor,
    vocab: tl.tensor,
    tiles: tl.tensor,
    TILE: tl.constexpr,
) -> None:
    i = tl.program_id(0)
    row = tl.load(row_of + i)
    if row < 0:
        return
    flags = integer(parameters, row, FLAGS)
    if flags & (ADJUSTS | ALLOWS | PENALIZES) == 0:
        return
    length = tl.load(position + i)
    scores = logits + i.to(tl.int64) * stride
    tail = tokens + row.to(tl.int64) * tokens_stride + length
    for tile in range(tiles):
        first = (tl.program_id(1) * tiles + tile) * TILE
        touched = flags & (ALLOWS | PENALIZES)
        if touched == 0:
            touched = _touches(own(parameters, row, RULES), first, first + TILE)
        if touched != 0:
            _process_tile(scores, tail, length, parameters, row, flags, first, vocab, TILE)


@triton.jit  # type: ignore[untyped-decorator]
def _process_tile(
    scores: tl.tensor,
    tail: tl.tensor,
    length: tl.tensor,
    parameters: tl.tensor,
    row: tl.tensor,
    flags: tl.tensor,
    first: tl.tensor,
    vocab: tl.tensor,
    TILE: tl.constexpr,
) -> None:
    """The scores of the tokens from ``first`` on; the request has ``length`` tokens, before ``tail``."""
    at = first + tl.arange(0, TILE)
    x = tl.load(scores + at, mask=at < vocab, other=float("-inf"))
    if flags & ALLOWS != 0:
        words = tl.load(own(parameters, row, ALLOWED) + at // 32, mask=at < vocab, other=0)
        x = tl.where((words >> (at % 32)) & 1 != 0, x, float("-inf"))
    if flags & ADJUSTS != 0:
        num_output = length - integer(parameters, row, PROMPT_LENGTH)
        rules = own(parameters, row, RULES)
        x = _ban_words(x, at, rules, tail, num_output, first, first + TILE)
        if num_output < integer(parameters, row, MIN_TOKENS):
            x = _ban_stops(x, at, rules, first, first + TILE)
        x = _add_bias(x, at, rules, first, first + TILE)
    if flags & PENALIZES != 0:
        # torch aligns tensors to more than 16 bytes, which Triton cannot know of an address that was loaded.
        counters = tl.multiple_of(own(parameters, row, COUNTS) + at, 16)
        x = _penalize(x, tl.load(counters, mask=at < vocab, other=0), parameters, row)
    tl.store(scores + at, x, mask=at < vocab)


@triton.jit  # type: ignore[untyped-decorator]
def _within(ids: tl.tensor, count: tl.tensor, first: tl.tensor, end: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Where in the rising ``ids`` those from ``first`` to below ``end`` begin and end."""
    begin = tl.zeros([], tl.int32)
    stop = tl.zeros([], tl.int32)
    for block in range(0, count, _IDS):
        place = block + tl.arange(0, _IDS)
        listed = tl.load(ids + place, mask=place < count, other=2147483647)
        begin += tl.sum((listed < first).to(tl.int32), axis=0)
        stop += tl.sum((listed < end).to(tl.int32), axis=0)
    return begin, stop


@triton.jit  # type: ignore[untyped-decorator]
def _touches(rules: tl.tensor, first: tl.tensor, end: tl.tensor) -> tl.tensor:
    """How many of the rules name a token from ``first`` to below ``end``."""
    num_biased = tl.load(rules)
    num_stops = tl.load(rules + 1)
    bias_begin, bias_end = _within(rules + 3, num_biased, first, end)
    stops = rules + 3 + 2 * num_biased
    # The words' last tokens follow the stop tokens, but are in an order of their own.
    stop_begin, stop_end = _within(stops, num_stops, first, end)
    word_begin, word_end = _within(stops + num_stops, tl.load(rules + 2), first, end)
    return bias_end - bias_begin + stop_end - stop_begin + word_end - word_begin


@triton.jit  # type: ignore[untyped-decorator]
def _ban_words(
    x: tl.tensor,
    at: tl.tensor,
    rules: tl.tensor,
    tail: tl.tensor,
    num_output: tl.tensor,
    first: tl.tensor,
    end: tl.tensor,
) -> tl.tensor:
    """Ban what would complete a bad word. As in vLLM its beginning must be in the output: one that ends the prompt does
    not count."""
    num_words = tl.load(rules + 2)
    words = rules + 3 + 2 * tl.load(rules) + tl.load(rules + 1)
    starts = words + num_words
    beginnings = starts + num_words + 1
    begin, stop = _within(words, num_words, first, end)
    for word in range(begin, stop):
        start = tl.load(starts + word)
        length = tl.load(starts + word + 1) - start
        if length <= num_output:
            matches = tl.load(words + word) >= 0
            for place in range(0, length):
                matches = matches & (tl.load(beginnings + start + place) == tl.load(tail - length + place))
            x = tl.where((at == tl.load(words + word)) & matches, float("-inf"), x)
    return x


@triton.jit  # type: ignore[untyped-decorator]
def _ban_stops(x: tl.tensor, at: tl.tensor, rules: tl.tensor, first: tl.tensor, end: tl.tensor) -> tl.tensor:
    stops = rules + 3 + 2 * tl.load(rules)
    begin, stop = _within(stops, tl.load(rules + 1), first, end)
    for place in range(begin, stop):
        x = tl.where(at == tl.load(stops + place), float("-inf"), x)
    return x


@triton.jit  # type: ignore[untyped-decorator]
def _add_bias(x: tl.tensor, at: tl.tensor, rules: tl.tensor, first: tl.tensor, end: tl.tensor) -> tl.tensor:
    num_biased = tl.load(rules)
    begin, stop = _within(rules + 3, num_biased, first, end)
    for place in range(begin, stop):
        bias = tl.load(rules + 3 + num_biased + place).to(tl.float32, bitcast=True)
        x = tl.where(at == tl.load(rules + 3 + place), x + bias, x)
    return x


@triton.jit  # type: ignore[untyped-decorator]
def _penalize(x: tl.tensor, counts: tl.tensor, parameters: tl.tensor, row: tl.tensor) -> tl.tensor:
    """Repetition goes by prompt and output, the others by the output."""
    repetition = number(parameters, row, REPETITION_PENALTY)
    x = tl.where(counts != 0, tl.where(x > 0, x / repetition, x * repetition), x)
    in_output = counts & (IN_PROMPT - 1)
    frequency = number(parameters, row, FREQUENCY_PENALTY) * in_output.to(tl.float32)
    return tl.where(in_output > 0, x - frequency - number(parameters, row, PRESENCE_PENALTY), x)
