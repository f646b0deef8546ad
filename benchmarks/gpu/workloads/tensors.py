"""Tensors full of random values where they are computed with, and of anything where they are only compiled for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from triton import knobs

_PIECE = 2**28


def random(shape: Sequence[int], dtype: torch.dtype, device: torch.device, scale: float = 1.0) -> Tensor:
    """Normally distributed where kernels run: on a GPU or under the interpreter; else whatever the memory holds."""
    tensor = torch.empty(tuple(shape), dtype=dtype, device=device)
    if device.type == "cuda" or knobs.runtime.interpret:
        # In pieces: what is drawn in float32 before it is rounded to 8 bits is four times as large.
        for piece in torch.split(tensor.view(-1), _PIECE):
            if dtype == torch.float8_e4m3fn:
                piece.copy_(torch.randn(piece.shape, device=device).mul_(scale))
            else:
                piece.normal_(std=scale)
    return tensor
