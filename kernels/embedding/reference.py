"""Rows of a table, one after another."""

from __future__ import annotations

import torch
from torch import Tensor


def embed(token_ids: Tensor, table: Tensor) -> Tensor:
    """See :func:`kernels.embedding.embed`."""
    rows = [torch.zeros_like(table[0]) if token_id < 0 else table[token_id] for token_id in token_ids.tolist()]
    return torch.stack(rows)
