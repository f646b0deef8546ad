"""Rotary position embedding, applied to queries and keys."""

from __future__ import annotations

from torch import Tensor

from kernels.rotary import cpu, reference

__all__ = ["apply_rotary"]


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair ``(x[i], x[i + head_dim / 2])`` of every head by its token's angle.

    :param x: ``[tokens, heads, head_dim]``; ``head_dim`` is even.
    :param cos: ``[tokens, head_dim / 2]``, of the dtype of ``x``.
    :param sin: like ``cos``.
    :returns: like ``x``, contiguous. Method: Su et al. 2021, arXiv 2104.09864, in GPT-NeoX's pairing.
    """
    if x.device.type == "cpu":
        return cpu.apply_rotary(x, cos, sin)
    return reference.apply_rotary(x, cos, sin)
