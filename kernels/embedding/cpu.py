"""Rows of a table by torch's own gather."""

from __future__ import annotations

import torch
from torch import Tensor


def embed(token_ids: Tensor, table: Tensor, out: Tensor) -> None:
    """See :func:`kernels.embedding.embed`."""
    torch.index_select(table, 0, token_ids.clamp_min(0), out=out)
    out[token_ids < 0] = 0
