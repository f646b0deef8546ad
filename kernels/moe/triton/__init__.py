"""Mixtures of experts on a GPU."""

from __future__ import annotations

from kernels.moe.triton.experts import experts_forward
from kernels.moe.triton.route import route
from kernels.moe.triton.sort import sort_tokens

__all__ = ["experts_forward", "route", "sort_tokens"]
