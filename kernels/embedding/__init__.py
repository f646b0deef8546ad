"""The rows of an embedding table."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import gpu
from kernels.embedding import cpu

__all__ = ["embed"]


def embed(token_ids: Tensor, table: Tensor, out: Tensor | None = None) -> Tensor:
    """``table[token_ids]``, with zeros for ids of -1: the token of a request that has failed.

    :param token_ids: ``[tokens]`` int32 or int64, contiguous, each from -1 to ``vocabulary - 1``.
    :param table: ``[vocabulary, hidden]``, contiguous.
    :param out: ``[tokens, hidden]``, contiguous, of the dtype of ``table``: where to write; None: new memory.
    :returns: ``[tokens, hidden]``.
    """
    if out is None:
        out = torch.empty((token_ids.shape[0], table.shape[1]), dtype=table.dtype, device=table.device)
    if gpu.serves(table):
        from kernels.embedding import triton as form

        form.embed(token_ids, table, out)
    else:
        cpu.embed(token_ids, table, out)
    return out
