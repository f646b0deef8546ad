"""How a GPU's programs share a batch's contexts, decided on the host from lengths alone.

A decode reads its whole context for one token, so it is bound by memory: all multiprocessors must read at all times.
One program serves all query heads of one KV head of one sequence; that is enough programs when sequences × KV heads is
several times the places for them, and far too few for a single long one, so contexts are *split*. Places: each of 132
multiprocessors holds two programs with 32 KB or more of keys and values under way to each (head size 128, bfloat16),
while what memory of 4.3 TB/s delivers to one multiprocessor within a latency of about 1 µs is 33 KB. That makes 264
places; with 8 KV heads, 33 for each:

========  =========  ==============================  ========================================================
batch     context    programs unsplit                chosen
========  =========  ==============================  ========================================================
1         1k         8: 97 % of the places idle      16 splits of 64 tokens, the least: 128 programs
1         128k       8                               32 splits of 4,096: 256 programs, one round
34        16k        272: a second round of 8        16 splits of 1,024: 4,352 programs, 17 short rounds
256       1k         2,048: 8 rounds                 none: a ragged last round costs an eighth at most
255 + 1   1k, 128k   2,048, one of them very long    128 splits of 1,024: the long one is spread like the rest
========  =========  ==============================  ========================================================

Splits are not free: each program waits for its tables and first keys, and writes 4 bytes for each element of its
heads' outputs, which one more kernel adds up. :func:`plan_launch` weighs these as tokens' worth of reading. The two
weights are estimates (about 2 µs each, a token of all places' keys and values 30 ns at 4.3 TB/s), not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from kernels.attention.cache import Launch
from kernels.gpu import Device

MAX_SPLITS = 128
"""More would not fit into the registers of the kernel that adds them up, and no case above asks for more."""
_PROGRAMS_PER_MULTIPROCESSOR = 2
_LEAST_TOKENS = 64
"""Tokens of a split are a multiple of this: the tile of most decode kernels."""
_PROGRAM_COST = 64
_REDUCTION_COST = 64


class LaunchPlan(NamedTuple):
    """A :class:`~kernels.attention.cache.Launch` whose ``split_tokens`` is still on the host."""

    decodes: int
    max_queries: int
    splits: int
    split_tokens: int

    def launch(self, split_tokens: Tensor) -> Launch:
        """For the kernels; ``split_tokens``, ``[1]`` int32 on the device, holds this plan's."""
        return Launch(self.decodes, self.max_queries, self.splits, split_tokens)


def plan_launch(
    queries: Sequence[int], contexts: Sequence[int], kv_heads: int, device: Device, window: int | None = None
) -> LaunchPlan:
    """Choose what :class:`~kernels.attention.cache.Launch` holds.

    :param queries: each sequence's query tokens. The first ones of at most one are decodes; after others, such a one is
        served as a chunk of one token, which is slow.
    :param contexts: each sequence's context in tokens, 0 for rows that only fill a graph.
    :param kv_heads: KV heads that a layer's cache holds on this device.
    :param window: if every layer's window is as short; a windowed layer among others divides its own window.

    ``splits`` is a power of two, so that few CUDA graphs exist. Takes a few microseconds for 256 sequences.
    """
    decodes = next((index for index, count in enumerate(queries) if count > 1), len(queries))
    read = contexts[:decodes] if window is None else [min(context, window) for context in contexts[:decodes]]
    split_tokens = _split_tokens(read, kv_heads, device)
    needed = max(-(-max(read, default=0) // split_tokens), 1)
    splits = 1 << (needed - 1).bit_length()
    return LaunchPlan(decodes, max(queries[decodes:], default=0), splits, split_tokens)


def _split_tokens(contexts: Sequence[int], kv_heads: int, device: Device) -> int:
    """The tokens of a split with which the estimated time is least.

    Sequences of ``total`` tokens cut every ``t`` give at most ``total / t + sequences`` pieces. So the shortest ``t``
    whose programs fit into ``rounds`` rounds of all places is ``total / (rounds × places - sequences)``. Where lengths
    differ much the places fill evenly by themselves, and halves of the longest are tried as well.
    """
    longest = max(contexts, default=0)
    shortest = max(_rounded_up(longest / MAX_SPLITS), _LEAST_TOKENS)
    whole = max(_rounded_up(longest), _LEAST_TOKENS)
    total, sequences = sum(contexts), len(contexts)
    places = device.multiprocessors * _PROGRAMS_PER_MULTIPROCESSOR / kv_heads

    def cost(tokens: int) -> float:
        """Two upper bounds of the time in which places that take the next piece when free do all pieces (Graham 1969):
        rounds of the longest piece, and everything shared out evenly with one longest piece at the end."""
        pieces = min(sequences * -(-longest // tokens), total / tokens + sequences)
        rounds = -(-pieces // places) * (tokens + _PROGRAM_COST)
        shared = (total + pieces * _PROGRAM_COST) / places + tokens + _PROGRAM_COST
        return min(rounds, shared) + (_REDUCTION_COST if tokens < whole else 0)

    filling = (total / (rounds * places - sequences) for rounds in range(1, 9) if rounds * places > sequences)
    halves = (whole / 2**halvings for halvings in range(8))
    return min((min(max(_rounded_up(tokens), shortest), whole) for tokens in (*halves, *filling)), key=cost)


def _rounded_up(tokens: float) -> int:
    return int(-(-tokens // _LEAST_TOKENS)) * _LEAST_TOKENS
