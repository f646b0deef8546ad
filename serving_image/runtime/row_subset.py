"""Working on some of a batch's rows, without a copy when it is all of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def take(values: Tensor, members: Sequence[int]) -> tuple[Tensor, Tensor | None]:
    """Rows ``members`` (rising) of ``values``: ``values`` itself if it is all of them, else a copy and its index."""
    if len(members) == len(values):
        return values, None
    index = torch.tensor(members, device=values.device)
    return values[index], index


def put(values: Tensor, index: Tensor | None, part: Tensor) -> None:
    """Bring back what :func:`take` gave, after a change: nothing to do if it was no copy."""
    if index is not None:
        values[index] = part


def column(values: Sequence[float], like: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """One value per row, ``[rows, 1]``, on the device of ``like``."""
    return torch.tensor(values, dtype=dtype, device=like.device)[:, None]
