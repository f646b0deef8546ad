"""What reads and writes every token once: norms, rotation and storage, activations, embedding."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.gpu.workloads.attention import Heads
from benchmarks.gpu.workloads.tensors import random
from kernels.activation import gated
from kernels.embedding import embed
from kernels.layer_norm import layer_norm
from kernels.rms_norm import rms_norm
from kernels.rotate_and_store import rotate_and_store

Call = Callable[[], Tensor]

_BF16 = torch.bfloat16
_VOCABULARY = 128_256


def rms(tokens: int, hidden: int, device: torch.device) -> Call:
    """Residual addition and norm: ``4 · tokens · hidden`` values moved."""
    x, residual, weight = _rows(tokens, hidden, device), _rows(tokens, hidden, device), _rows(1, hidden, device)[0]
    return lambda: rms_norm(x, weight, 1e-5, residual)


def layer(tokens: int, hidden: int, device: torch.device) -> Call:
    """The same with LayerNorm and its bias."""
    x, residual = _rows(tokens, hidden, device), _rows(tokens, hidden, device)
    weight, bias = _rows(2, hidden, device)
    return lambda: layer_norm(x, weight, bias, 1e-5, residual)


def rotation(tokens: int, heads: Heads, device: torch.device) -> Call:
    """Rotation in place and storage: ``2 · tokens · (heads + 2 · kv_heads) · head_dim`` values moved."""
    qkv = _rows(tokens, (heads.heads + 2 * heads.kv_heads) * heads.head_dim, device)
    angles = torch.rand(tokens, heads.head_dim // 2, device=device)
    slots = torch.randperm(tokens, device=device)
    cache = heads.pool(tokens, device)
    cos, sin = angles.cos(), angles.sin()
    return lambda: rotate_and_store(qkv, cos, sin, slots, cache)


def activation(tokens: int, intermediate: int, device: torch.device) -> Call:
    """SwiGLU: ``3 · tokens · intermediate`` values moved."""
    gate_up = _rows(tokens, 2 * intermediate, device)
    return lambda: gated(gate_up, "silu")


def embedding(tokens: int, hidden: int, device: torch.device) -> Call:
    """Rows of a table for random tokens: ``2 · tokens · hidden`` values moved."""
    table = _rows(_VOCABULARY, hidden, device)
    token_ids = torch.randint(_VOCABULARY, (tokens,), device=device)
    return lambda: embed(token_ids, table)


def _rows(count: int, width: int, device: torch.device) -> Tensor:
    return random((count, width), _BF16, device)
