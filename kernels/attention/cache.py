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

from torch import Tensor, float32


class LayerCache(NamedTuple):
    """Keys and values of one layer, ``[blocks, kv_heads, block_size, head_dim]`` each.

    The order of elements within a block and head belongs to the form of the operation that writes and reads it. A cache
    of ``float8_e4m3fn`` holds values divided by ``scales``, ``[2, kv_heads]`` float32: the keys' row, then the values'.
    """

    key: Tensor
    value: Tensor
    scales: Tensor | None = None

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
class Launch:
    """What the host must know of a batch to launch a GPU's kernels without waiting for the device.

    Decodes are sequences of at most one query token; they come first. With the batch in a CUDA graph every number here
    is part of the graph, and only ``split_tokens`` changes from replay to replay.

    :ivar decodes: how many of the batch's first sequences are decodes.
    :ivar max_queries: the most query tokens of any other sequence; 0 if there is none.
    :ivar splits: how many programs may share one decode's context.
    :ivar split_tokens: ``[1]`` int32 on the device: how many tokens of a decode's context each of them takes; times
        ``splits`` no less than the longest one.
    """

    decodes: int
    max_queries: int
    splits: int
    split_tokens: Tensor


@dataclass(frozen=True, slots=True)
class PagedBatch:
    """Which queries and which blocks belong to which sequence; int32 tensors on the cache's device.

    :ivar query_starts: ``[sequences + 1]``; rows ``query_starts[i] … query_starts[i + 1] - 1`` of the queries are the
        *last* tokens of sequence ``i``'s context, at least one.
    :ivar context_lengths: ``[sequences]``, in tokens, the queries' own included.
    :ivar block_tables: ``[sequences, blocks]``, contiguous; only the entries that a context needs are read, and with a
        window only those of blocks that some query of the batch sees into.
    :ivar slots: ``[tokens]`` int64, all different: where each query token's key and value go.
    :ivar launch: for a GPU; None has it read from the tensors, which waits for the device. With it, rows that only fill
        a CUDA graph are sequences of one query and a context of 0 with the slot -1; what attention yields for them is
        unspecified but finite.
    """

    query_starts: Tensor
    context_lengths: Tensor
    block_tables: Tensor
    slots: Tensor
    launch: Launch | None = None


@dataclass(frozen=True, slots=True)
class AttentionVariant:
    """What some families change about attention.

    :ivar window: a query sees this many of the last tokens, itself included; None: all. Slots of tokens that no query
        of the batch sees may hold anything.
    :ivar softcap: scores become ``softcap * tanh(score / softcap)`` before the mask.
    :ivar alibi_slopes: ``[heads]`` float32, contiguous; ``slope * (key position - query position)`` is added to the
        scores.
    :ivar sinks: ``[heads]`` float32, contiguous: the score of one more key, whose value is zero.
    """

    window: int | None = None
    softcap: float | None = None
    alibi_slopes: Tensor | None = None
    sinks: Tensor | None = None

    def __post_init__(self) -> None:
        """:raises ValueError: a window without tokens, or a softcap that is not positive."""
        if self.window is not None and self.window < 1:
            raise ValueError(f"a window of {self.window} tokens: a query sees at least itself; None is no window")
        if self.softcap is not None and self.softcap <= 0:
            raise ValueError(f"a softcap of {self.softcap}: it must be positive; None is no softcap")

    def first_seen(self, position: int) -> int:
        """The first token that a query at ``position`` sees."""
        return 0 if self.window is None else max(0, position + 1 - self.window)

    def check(self, heads: int) -> None:
        """:raises ValueError: slopes or sinks that are not one contiguous float32 for each of the query's ``heads``."""
        for name, numbers in (("alibi_slopes", self.alibi_slopes), ("sinks", self.sinks)):
            if numbers is None:
                continue
            if numbers.shape != (heads,) or numbers.dtype != float32 or not numbers.is_contiguous():
                found = f"{list(numbers.shape)} {numbers.dtype} in steps of {list(numbers.stride())}"
                raise ValueError(f"{name} are {found}, not [{heads}] torch.float32 in steps of 1")


PLAIN = AttentionVariant()
