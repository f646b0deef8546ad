"""How a step reaches the device, and what it becomes there.

The host sends one run of int32 words per step. Everything else that a forward pass wants to know of its batch is
worked out on the device, out of the *tables*: one row for each live request, kept from step to step::

    words     │ split_tokens │ item 0: row, start, tokens, … │ item 1: … │ … │ new blocks of item 0, of item 1, … │
                     1                ITEM_WORDS                              as many as there are

An *item* is the next ``num_tokens`` tokens of one request, from position ``start``. With 256 requests that decode, and
a new block for one in 32 of them, these are 7 KiB; the inputs that they become, with contexts of 8,192 tokens in blocks
of 32, are 270 KiB.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Item(NamedTuple):
    """The words of one item, in their order.

    ``query_start`` counts the tokens of the items before. The request's blocks from index ``first_new_block`` up to the
    one of the item's last token are new to the tables: they are among the new blocks, the first of them number
    ``new_blocks``. ``samples`` is 1 if a token is to be chosen after the item's last one, else 0.
    """

    row: int
    start: int
    num_tokens: int
    query_start: int
    first_new_block: int
    new_blocks: int
    samples: int


ITEM_WORDS = len(Item._fields)


class StepSize(NamedTuple):
    """How large a step is.

    ``padding`` counts rows after the last item that only fill a CUDA graph: one token each, with a context of 0 and the
    slot -1. ``extent`` is no less than the tokens of any item, nor than the blocks of its whole context.
    """

    items: int
    padding: int
    extent: int


class RequestTables(NamedTuple):
    """What the device knows of live requests, a row for each; int32.

    ``tokens`` ``[rows, max_model_len]``: prompt and answer. ``prompt_lengths`` ``[rows]``. ``blocks``
    ``[rows, max_blocks]``: its block table.
    """

    tokens: Tensor
    prompt_lengths: Tensor
    blocks: Tensor


class BatchInputs(NamedTuple):
    """Memory for a batch of up to ``items`` items and ``tokens`` tokens, of which a step uses the beginning.

    ``token_ids``, ``positions``, ``sequence_lengths`` and ``slots`` are ``[tokens]`` int64, ``query_starts`` is
    ``[items + 1]`` int32, ``context_lengths`` ``[items]`` int32 and ``block_tables`` ``[items, max_blocks]`` int32; see
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
