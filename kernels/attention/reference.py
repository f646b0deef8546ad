"""Paged attention written for the reader: explicit gather, float32 scores, explicit mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.attention.spans import QuerySpan


def paged_attention(
    query: Tensor, key_cache: Tensor, value_cache: Tensor, spans: Sequence[QuerySpan], scale: float
) -> Tensor:
    """See :func:`kernels.attention.paged_attention`."""
    output = torch.empty_like(query)
    group = query.shape[1] // key_cache.shape[1]
    for span in spans:
        slots = torch.tensor(
            [run.start + i for run in span.runs for i in range(run.length)], device=query.device, dtype=torch.int64
        )
        rows = slice(span.query_start, span.query_start + span.query_length)
        keys = key_cache[slots].repeat_interleave(group, dim=1).float()
        values = value_cache[slots].repeat_interleave(group, dim=1).float()
        scores = torch.einsum("qhd,khd->hqk", query[rows].float(), keys) * scale
        key_position = torch.arange(len(slots), device=query.device)
        query_position = key_position[-span.query_length :]
        scores.masked_fill_(key_position[None, :] > query_position[:, None], float("-inf"))
        output[rows] = torch.einsum("hqk,khd->qhd", scores.softmax(dim=-1), values).to(query.dtype)
    return output
