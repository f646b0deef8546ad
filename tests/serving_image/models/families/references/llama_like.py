"""What Orion and DeciLM have of Llama (Touvron et al. 2023, arXiv 2302.13971): rotary grouped attention and SwiGLU."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from tests.serving_image.models.families.references.checkpoint import Shapes, Weights
from tests.serving_image.models.families.references.parts import attention, rotate

Norm = Callable[[str, Tensor], Tensor]
"""The norm of this name."""


def attention_shapes(prefix: str, hidden: int, heads: int, kv_heads: int) -> Shapes:
    """Of ``self_attn``."""
    size = hidden // heads
    return {
        prefix + "q_proj.weight": (hidden, hidden),
        prefix + "k_proj.weight": (kv_heads * size, hidden),
        prefix + "v_proj.weight": (kv_heads * size, hidden),
        prefix + "o_proj.weight": (hidden, hidden),
    }


def feed_forward_shapes(prefix: str, hidden: int, inner: int) -> Shapes:
    """Of ``mlp``."""
    return {
        prefix + "gate_proj.weight": (inner, hidden),
        prefix + "up_proj.weight": (inner, hidden),
        prefix + "down_proj.weight": (hidden, inner),
    }


def attend(weights: Weights, prefix: str, x: Tensor, size: int, theta: float) -> Tensor:
    """``self_attn`` with heads of ``size``."""
    query, key, value = (
        (x @ weights[f"{prefix}{name}_proj.weight"].t()).unflatten(1, (-1, size)) for name in ("q", "k", "v")
    )
    attended = attention(rotate(query, theta), rotate(key, theta), value, size**-0.5)
    return attended @ weights[prefix + "o_proj.weight"].t()


def feed_forward(weights: Weights, prefix: str, x: Tensor) -> Tensor:
    """``mlp``."""
    gate = functional.silu(x @ weights[prefix + "gate_proj.weight"].t())
    return (gate * (x @ weights[prefix + "up_proj.weight"].t())) @ weights[prefix + "down_proj.weight"].t()
