"""From how a checkpoint stores a tensor to how the decoder wants it: oddities end here, at load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Shape = tuple[int, ...]

_NO_LENGTH = 1e-12
"""What a row of zeros is divided by."""


def _same_shape(shape: Shape) -> Shape:
    return shape


def _divided(tensor: Tensor, *sizes: int) -> Tensor:
    """The rows in several dimensions."""
    return tensor.reshape(*sizes, *tensor.shape[1:])


@dataclass(frozen=True)
class Transform:
    """A change of a tensor, and the shape that must be stored for a wanted one.

    Transforms of rows work on weights ``[rows, columns]`` and on biases ``[rows]``.
    """

    apply: Callable[[Tensor], Tensor]
    stored_shape: Callable[[Shape], Shape] = _same_shape

    def then(self, following: Transform) -> Transform:
        """This one first, then ``following``."""
        return Transform(
            lambda tensor: following.apply(self.apply(tensor)),
            lambda shape: self.stored_shape(following.stored_shape(shape)),
        )


TRANSPOSE = Transform(lambda tensor: tensor.t() if tensor.dim() == 2 else tensor, lambda shape: shape[::-1])
"""A ``Conv1D``, GPT-2's way to store a linear layer: ``[in_features, out_features]``; its biases stay."""

PLUS_ONE = Transform(lambda tensor: tensor.float() + 1)
"""Norms that multiply by ``1 + weight``, for parameters that are kept ``wide``."""

UNIT_ROWS = Transform(
    lambda tensor: tensor / tensor.norm(dim=1, keepdim=True, dtype=torch.float32).clamp_min(_NO_LENGTH)
)
"""An output layer that normalises its rows with every product (Baichuan 2)."""


def scaled(factor: float) -> Transform:
    """A factor on the result of a linear layer or a norm, put into its weights."""
    return Transform(lambda tensor: tensor.to(torch.float32, copy=True).mul_(factor))


def softplus(plus: float = 0.0) -> Transform:
    """``plus + log(1 + exp(x))``: a number that is stored so that training cannot make it negative."""
    return Transform(lambda tensor: torch.nn.functional.softplus(tensor.float()) + plus)


def flattened_heads(head_dim: int) -> Transform:
    """From ``[heads, head_dim]`` to one row after another."""
    return Transform(lambda tensor: tensor.flatten(), lambda shape: (shape[0] // head_dim, head_dim))


def half_rotation(head_dim: int, rotary_dim: int | None = None) -> Transform:
    """The rows of query or key heads whose rotary embedding pairs neighbours ``(2i, 2i + 1)``, ordered for one that
    pairs ``(i, i + rotary_dim / 2)``. Scores do not change, since queries and keys are reordered alike."""
    size = head_dim if rotary_dim is None else rotary_dim
    order = torch.cat((torch.arange(0, size, 2), torch.arange(1, size, 2), torch.arange(size, head_dim)))
    return Transform(lambda tensor: _divided(tensor, -1, head_dim)[:, order].flatten(0, 1))


def last_rotation(head_dim: int, rotary_dim: int) -> Transform:
    """The same where the *last* ``rotary_dim`` elements of a head are rotated; they stay the last (DeepSeek)."""
    start = head_dim - rotary_dim
    order = torch.cat((torch.arange(start), torch.arange(start, head_dim, 2), torch.arange(start + 1, head_dim, 2)))
    return Transform(lambda tensor: _divided(tensor, -1, head_dim)[:, order].flatten(0, 1))


def of_qkv(num_heads: int, kv_heads: int, head_dim: int, part: Transform) -> Transform:
    """``part`` on the queries' and on the keys' rows of a fused ``[q | k | v]``."""
    keys, values = num_heads * head_dim, (num_heads + kv_heads) * head_dim

    def apply(tensor: Tensor) -> Tensor:
        query, key, value = tensor.tensor_split((keys, values))
        return torch.cat((part.apply(query), part.apply(key), value))

    return Transform(apply)


def grouped_qkv(num_heads: int, kv_heads: int, head_dim: int) -> Transform:
    """From ``[kv_heads, queries of the group … | key | value]`` to ``[q | k | v]``; with a key/value head for each
    head, that is from ``[heads, 3, head_dim]``."""
    group = num_heads // kv_heads

    def apply(tensor: Tensor) -> Tensor:
        groups = _divided(tensor, kv_heads, group + 2, head_dim)
        query, key, value = groups.tensor_split((group, group + 1), dim=1)
        return torch.cat([part.flatten(0, 2) for part in (query, key, value)])

    return Transform(apply)


def sharded(shards: int, order: tuple[int, ...]) -> Transform:
    """From shards that each hold a part of every projection, ``order[i]`` being the place there of projection ``i``, to
    one projection after another."""

    def apply(tensor: Tensor) -> Tensor:
        parts = _divided(tensor, shards, len(order), -1)
        return torch.cat([parts[:, place].flatten(0, 1) for place in order])

    return Transform(apply)


def rows(start: int, stop: int, total: int) -> Transform:
    """Some rows of a tensor that has ``total`` of them."""
    return Transform(lambda tensor: tensor[start:stop], lambda shape: (total, *shape[1:]))


def item(index: int, total: int) -> Transform:
    """One of ``total`` tensors that are stacked, such as an expert's."""
    return Transform(lambda tensor: tensor[index], lambda shape: (total, *shape))


def alternating(parts: int = 2) -> Transform:
    """From rows that alternate between projections, ``gate, up, gate, up …``, to one projection after another."""
    return Transform(lambda tensor: _divided(tensor, -1, parts).transpose(0, 1).flatten(0, 1))


def swapped_halves() -> Transform:
    """From ``[up | gate]`` to ``[gate | up]``."""
    return Transform(lambda tensor: torch.cat(tensor.chunk(2)[::-1]))


def latent_up(num_heads: int, nope_dim: int, value_dim: int, which: str) -> Transform:
    """The keys' or the values' part of DeepSeek's ``kv_b_proj``: from ``[heads · (nope + value), latent]`` to ``[heads,
    nope or value, latent]``."""
    picked = slice(None, nope_dim) if which == "key" else slice(nope_dim, None)
    return Transform(
        lambda tensor: _divided(tensor, num_heads, nope_dim + value_dim)[:, picked],
        lambda shape: (num_heads * (nope_dim + value_dim), shape[2]),
    )
