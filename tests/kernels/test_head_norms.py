"""Norms of queries and keys on a CPU, against torch's own norms of one head at a time."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from kernels.attention import LayerCache, PagedBatch, paged_attention
from kernels.rotate_and_store import HeadNorms, cpu, reference, rotate_and_store


class Layout(NamedTuple):
    heads: int
    kv_heads: int
    head_dim: int
    half: int


LAYOUTS = [Layout(3, 1, 16, 8), Layout(6, 2, 12, 4), Layout(4, 4, 80, 10), Layout(2, 1, 256, 0), Layout(9, 3, 6, 3)]


@st.composite
def _norms(draw: st.DrawFn, layout: Layout, dtype: torch.dtype, generator: torch.Generator) -> HeadNorms:
    extent: Literal["head", "projection"] = draw(st.sampled_from(["head", "projection"]))
    own, biased = draw(st.booleans()), draw(st.booleans())
    weight_dtype = draw(st.sampled_from([torch.float32, dtype]))

    def vector(heads: int) -> torch.Tensor:
        count = heads if own or extent == "projection" else 1
        return torch.randn(count * layout.head_dim, generator=generator).to(weight_dtype)

    return HeadNorms(
        vector(layout.heads),
        vector(layout.kv_heads),
        draw(st.sampled_from([1e-6, 1e-2])),
        kind=draw(st.sampled_from(["rms", "layer"])),
        extent=extent,
        query_bias=vector(layout.heads) if biased else None,
        key_bias=vector(layout.kv_heads) if biased else None,
        after_rotation=draw(st.booleans()),
    )


def _normalised(heads: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, norms: HeadNorms) -> torch.Tensor:
    """``[tokens, heads, head_dim]`` float32, one vector at a time."""
    tokens = len(heads)
    vectors = heads.reshape(tokens, 1, -1) if norms.extent == "projection" else heads
    weights = weight.float().reshape(-1, vectors.shape[2]).expand(vectors.shape[1], -1)
    biases = None if bias is None else bias.float().reshape(-1, vectors.shape[2]).expand(vectors.shape[1], -1)
    out = torch.empty_like(vectors)
    for index in range(vectors.shape[1]):
        one = vectors[:, index]
        if norms.kind == "rms":
            out[:, index] = functional.rms_norm(one, one.shape[1:], weights[index], norms.epsilon)
            if biases is not None:
                out[:, index] += biases[index]
        else:
            added = None if biases is None else biases[index]
            out[:, index] = functional.layer_norm(one, one.shape[1:], weights[index], added, norms.epsilon)
    return out.reshape(heads.shape)


def _turned(heads: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Pairs as complex numbers, times a unit of the angle."""
    half = angles.shape[1]
    pairs = torch.complex(heads[..., :half], heads[..., half : 2 * half])
    pairs = pairs * torch.polar(torch.ones_like(angles), angles)[:, None]
    return torch.cat([pairs.real, pairs.imag, heads[..., 2 * half :]], dim=-1)


def _expected(qkv: torch.Tensor, angles: torch.Tensor, layout: Layout, norms: HeadNorms) -> list[torch.Tensor]:
    """Queries and keys."""
    heads = qkv.view(len(qkv), -1, layout.head_dim).float()
    parts = heads[:, : layout.heads], heads[:, layout.heads : layout.heads + layout.kv_heads]
    results = []
    for part, weight, bias in zip(parts, (norms.query, norms.key), (norms.query_bias, norms.key_bias), strict=True):
        if norms.after_rotation:
            results.append(_normalised(_turned(part, angles), weight, bias, norms))
        else:
            results.append(_turned(_normalised(part, weight, bias, norms), angles))
    return results


def _close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    tolerance = 2e-5 if actual.dtype == torch.float32 else 2e-2
    torch.testing.assert_close(actual.float(), expected, atol=tolerance, rtol=tolerance)


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_random_norms(data: st.DataObject) -> None:
    """Each form for CPUs. What the compiled kernels store only they can read: attention over the tokens tells."""
    layout = data.draw(st.sampled_from(LAYOUTS))
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16]))
    tokens = data.draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    norms = data.draw(_norms(layout, dtype, generator))
    width = (layout.heads + 2 * layout.kv_heads) * layout.head_dim
    qkv = (torch.randn(tokens, width, generator=generator) + 0.5).to(dtype)
    angles = torch.randn(tokens, layout.half, generator=generator)
    query, key = _expected(qkv, angles, layout, norms)
    value = qkv.view(tokens, -1, layout.head_dim)[:, -layout.kv_heads :]

    slots = torch.arange(tokens)
    for form in (reference, cpu):
        cache = _empty_cache(layout, dtype, block_size=8)
        _close(form.rotate_and_store(qkv, angles.cos(), angles.sin(), slots, cache, norms), query)
        _close(cache.key[0, :, :tokens].transpose(0, 1), key)
        assert torch.equal(cache.value[0, :, :tokens].transpose(0, 1), value)
    cache = _empty_cache(layout, dtype, block_size=32)
    actual = rotate_and_store(qkv.clone(), angles.cos(), angles.sin(), slots, cache, norms)
    _close(actual, query)
    _close(_attended(actual, cache), _attention(query, key, value))


def _empty_cache(layout: Layout, dtype: torch.dtype, block_size: int) -> LayerCache:
    shape = (1, layout.kv_heads, block_size, layout.head_dim)
    return LayerCache(*(torch.full(shape, torch.nan, dtype=dtype) for _ in range(2)))


def _attended(query: torch.Tensor, cache: LayerCache) -> torch.Tensor:
    tokens = len(query)
    integers = (torch.tensor(numbers, dtype=torch.int32) for numbers in ([0, tokens], [tokens], [[0]]))
    return paged_attention(query, cache, PagedBatch(*integers, torch.arange(tokens)), query.shape[2] ** -0.5)


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    parts = (part.float().transpose(0, 1)[None] for part in (query, key, value))
    return functional.scaled_dot_product_attention(*parts, is_causal=True, enable_gqa=True)[0].transpose(0, 1)


def test_by_hand() -> None:
    """Two heads: (3, 4) and (0, 5). Each by itself has a mean square of 12.5; together too, and a mean of 3."""
    heads = torch.tensor([[3.0, 4.0, 0.0, 5.0]])
    qkv, no_angles, slots = torch.cat([heads] * 3, dim=1), torch.empty(1, 0), torch.tensor([0])

    def queries(weight: list[float], norms: dict[str, str]) -> list[float]:
        vector = torch.tensor(weight)
        cache = LayerCache(torch.zeros(1, 2, 16, 2), torch.zeros(1, 2, 16, 2))
        head_norms = HeadNorms(vector, vector, 0.0, **norms)
        return rotate_and_store(qkv.clone(), no_angles, no_angles, slots, cache, head_norms).flatten().tolist()

    root = math.sqrt(12.5)
    assert queries([1.0, 2.0], {}) == pytest.approx([3 / root, 8 / root, 0.0, 10 / root])
    assert queries([1.0, 1.0, 2.0, 3.0], {}) == pytest.approx([3 / root, 4 / root, 0.0, 15 / root])
    assert queries([1.0, 1.0], {"kind": "layer"}) == pytest.approx([-1.0, 1.0, -1.0, 1.0])
    spread = math.sqrt(14 / 4)
    whole = {"kind": "layer", "extent": "projection"}
    assert queries([1.0] * 4, whole) == pytest.approx([0.0, 1 / spread, -3 / spread, 2 / spread])


@pytest.mark.parametrize(
    ("norms", "complaint"),
    [
        (lambda: HeadNorms(torch.ones(8), torch.ones(8), 1e-5, extent="projection"), "has 8, not 16"),
        (lambda: HeadNorms(torch.ones(6), torch.ones(8), 1e-5), "has 6, not 8 or 16"),
        (lambda: HeadNorms(*(torch.ones(8, dtype=torch.float16),) * 2, 1e-5), "in torch.float16 of a projection"),
    ],
)
def test_norms_that_do_not_fit(norms: object, complaint: str) -> None:
    cache = LayerCache(torch.zeros(1, 1, 16, 8), torch.zeros(1, 1, 16, 8))
    angles = torch.zeros(1, 4)
    with pytest.raises(ValueError, match=complaint):
        rotate_and_store(torch.zeros(1, 32), angles, angles, torch.tensor([0]), cache, norms())  # type: ignore[operator]


def test_norms_that_contradict_themselves() -> None:
    weight = torch.ones(8)
    with pytest.raises(ValueError, match="kinds are rms and layer"):
        HeadNorms(weight, weight, 1e-5, kind="batch")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"bias is \[4\], its weight \[8\]"):
        HeadNorms(weight, weight, 1e-5, query_bias=torch.ones(4))
    with pytest.raises(ValueError, match="of one dtype"):
        HeadNorms(weight, weight.bfloat16(), 1e-5)
