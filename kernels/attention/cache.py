"""The paged key/value cache of one layer, and how a ragged batch maps onto it.

The cache is a pool of blocks of ``block_size`` tokens. Token ``i`` of a sequence is in the ``i // block_size``-th block
of its *block table*; its *slot* is that block's number times ``block_size`` plus ``i % block_size``::

    block          0         1         2         3
    slot           0 … 15    16 … 31   32 … 47   48 … 63       (block_size 16)
                   seq B     seq A     (free)    seq A

    seq A, 20 tokens: block table [1, 3], slots 16 … 31, 48 … 51

New tokens of all sequences lie one after another in one ``[tokens, heads, head_dim]`` tensor of queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class LayerCache(NamedTuple):
    """Keys and values of one layer, ``[blocks, kv_heads, block_size, head_dim]`` each.

    The order of elements within a block and head belongs to the form of the operation that writes and reads it.
    """

    key: Tensor
    value: Tensor

    @property
    def kv_heads(self) -> int:
        return self.key.shape[1]

    @property
    def block_size(self) -> int:
        return self.key.shape[2]

    @property
    def head_dim(self) -> int:
        return self.key.shape[3]


@dataclass(frozen=True, slots=True)
class PagedBatch:
    """Which queries and which blocks belong to which sequence; int32 tensors on the cache's device.

    :ivar query_starts: ``[sequences + 1]``; rows ``query_starts[i] … query_starts[i + 1] - 1`` of the queries are the
        *last* tokens of sequence ``i``'s context, at least one.
    :ivar context_lengths: ``[sequences]``, in tokens, the queries' own included.
    :ivar block_tables: ``[sequences, blocks]``, contiguous; only the entries that a context needs are read.
    :ivar slots: ``[tokens]`` int64, all different: where each query token's key and value go.
    """

    query_starts: Tensor
    context_lengths: Tensor
    block_tables: Tensor
    slots: Tensor
