"""How a ragged batch of queries maps onto the paged key/value cache.

The cache of one layer is a row of token slots; block ``b`` owns slots ``b * block_size … (b + 1) * block_size - 1``::

    slot     0        128       256       384       512       640
             ├─ block 0 ┼─ block 1 ┼─ block 2 ┼─ block 3 ┼─ block 4 ┤
    owner      seq A      seq B      seq B      seq A      (free)

    seq A, 200 tokens: runs (0, 128), (384, 72)     two runs: must be gathered
    seq B, 250 tokens: runs (128, 250)              one run: keys and values are a view, nothing is copied

Queries of all sequences lie one after another in one ``[tokens, heads, head_dim]`` tensor; a :class:`QuerySpan` says
which rows belong to a sequence and where its context is.
"""

from __future__ import annotations

from typing import NamedTuple


class SlotRun(NamedTuple):
    """``length`` adjacent slots of the cache, from ``start``."""

    start: int
    length: int


class QuerySpan(NamedTuple):
    """One sequence's part of a batch.

    ``query_start`` and ``query_length`` select its query rows, which are the *last* ``query_length`` tokens of its
    context; ``runs`` hold the slots of the whole context (those of the queries themselves included), in order.
    """

    query_start: int
    query_length: int
    runs: tuple[SlotRun, ...]

    @property
    def context_length(self) -> int:
        """Keys that the last query sees."""
        return sum(run.length for run in self.runs)
