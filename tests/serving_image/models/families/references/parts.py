"""What the references are made of, in float32 and over one whole sequence: ``[tokens, …]``."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Zhang and Sennrich 2019, arXiv 1910.07467."""
    return weight * x / (x.square().mean(-1, keepdim=True) + epsilon).sqrt()


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, epsilon: float) -> Tensor:
    """Ba et al. 2016, arXiv 1607.06450."""
    centred = x - x.mean(-1, keepdim=True)
    normal = weight * centred / (centred.square().mean(-1, keepdim=True) + epsilon).sqrt()
    return normal if bias is None else normal + bias


def rotate(x: Tensor, theta: float = 10000.0) -> Tensor:
    """Su et al. 2021, arXiv 2104.09864, as a product of complex numbers, each of an element of the first half and one
    of the second.

    :param x: ``[tokens, heads, head_dim]``.
    """
    size = x.shape[-1]
    frequencies = theta ** (-torch.arange(0, size, 2) / size)
    angles = torch.arange(x.shape[0])[:, None] * frequencies
    turned = torch.complex(*x.chunk(2, dim=-1)) * torch.polar(torch.ones_like(angles), angles)[:, None]
    return torch.cat((turned.real, turned.imag), dim=-1)


def attention(query: Tensor, key: Tensor, value: Tensor, scale: float, slopes: Tensor | None = None) -> Tensor:
    """Causal attention; query heads share keys and values in groups.

    :param query: ``[tokens, heads, head_dim]``; ``key`` and ``value``: ``[tokens, kv_heads, head_dim]``.
    :param slopes: of ALiBi, ``[heads]``: scores fall by them with every token of distance.
    :returns: ``[tokens, heads * head_dim]``.
    """
    tokens, heads, _ = query.shape
    key, value = (part.repeat_interleave(heads // part.shape[1], dim=1) for part in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query, key) * scale
    distance = torch.arange(tokens)[:, None] - torch.arange(tokens)
    if slopes is not None:
        scores = scores - slopes[:, None, None] * distance
    weights = scores.masked_fill(distance < 0, -math.inf).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, value).flatten(1)


def alibi_slopes(heads: int) -> Tensor:
    """The published recursion for any number of heads, ``[heads]``: Press et al. 2021, arXiv 2108.12409."""

    def slopes(count: int) -> list[float]:
        if math.log2(count).is_integer():
            start = 2.0 ** (-(2.0 ** -(math.log2(count) - 3)))
            return [start ** (index + 1) for index in range(count)]
        below = 2 ** math.floor(math.log2(count))
        return slopes(below) + slopes(2 * below)[0::2][: count - below]

    return torch.tensor(slopes(heads))
