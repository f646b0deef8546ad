"""How a step reaches the device, and what it becomes there.

The host sends one run of int32 words per step. Everything else that a forward pass wants to know of its batch is
worked out on the device, out of the *tables*: one row for each live request, kept from step to step::

    words     │ split_tokens │ item 0: row, start, … │ its blocks in group 0, 1, … │ item 1: … │ … │ new blocks │
                     1             ITEM_WORDS                 BLOCK_WORDS each                        all items'

An *item* is the next ``num_tokens`` tokens of one request, from position ``start``. Layers with the same blocks are a
*group*; most models have one. With 256 requests that decode, and a new block for one in 32 of them, these are 8 KiB;
the inputs that they become, with contexts of 8,192 tokens in blocks of 32, are 270 KiB.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Item(NamedTuple):
    """The words of one item, in their order.

    ``query_start`` counts the tokens of the items before. ``samples`` is 1 if a token is to be chosen after the item's
    last one, else 0.
    """

    row: int
    start: int
    num_tokens: int
    query_start: int
    samples: int


class ItemBlocks(NamedTuple):
    """The words about the blocks of an item's context in one group, in their order.

    The item's request holds the blocks from index ``first`` up to the one of the item's last token; what was before,
    its window has left. Those from index ``first_new`` on, no less than ``first``, are new to the tables: they are
    among the new blocks, the first of them number ``new_blocks``.
    """

    first: int
    first_new: int
    new_blocks: int


ITEM_WORDS = len(Item._fields)
BLOCK_WORDS = len(ItemBlocks._fields)


class StepSize(NamedTuple):
    """How large a step is.

    ``padding`` counts rows after the last item that only fill a CUDA graph: one token each, with a context of 0 and the
    slot -1. ``extent`` is no less than the tokens of any item, nor than the blocks of its whole context.
    """

    items: int
    padding: int
    extent: int


class RequestTables(NamedTuple):
    """What the device knows of live requests, a row for each; int32, contiguous.

    ``tokens`` ``[rows, max_model_len]``: prompt and answer. ``prompt_lengths`` ``[rows]``. ``blocks``
    ``[groups, rows, max_blocks]``: its block tables.
    """

    tokens: Tensor
    prompt_lengths: Tensor
    blocks: Tensor


class BatchInputs(NamedTuple):
    """Memory for a batch of up to ``items`` items and ``tokens`` tokens, of which a step uses the beginning.

    ``token_ids``, ``positions`` and ``sequence_lengths`` are ``[tokens]`` int64, ``slots`` ``[groups, tokens]`` int64,
    ``query_starts`` is ``[items + 1]`` int32, ``context_lengths`` ``[items]`` int32 and ``block_tables``
    ``[groups, items, max_blocks]`` int32, of which no entry changes that a window has left; all are contiguous. See
    :class:`kernels.attention.PagedBatch`. ``sequence_lengths`` is, for each token, the length of the prompt that it
    belongs to, or of the sequence that it ends if it was generated. ``sampled_rows`` ``[items]`` int32 is the row of
    each item's request if it samples, else -1, and ``sampled_positions`` ``[items]`` int32 the position that the chosen
    token will have. ``last_tokens`` ``[items]`` int64 is where among the tokens the item's last one is.
    ``split_tokens`` is ``[1]`` int32, see :class:`kernels.attention.Launch`.
    """

    token_ids: Tensor
    positions: Tensor
    sequence_lengths: Tensor
    slots: Tensor
    query_starts: Tensor
    context_lengths: Tensor
    block_tables: Tensor
    sampled_rows: Tensor
    sampled_positions: Tensor
    last_tokens: Tensor
    split_tokens: Tensor
