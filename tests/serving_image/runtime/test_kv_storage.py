"""Which layers share memory, and what it holds of a token."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels.attention import LayerCache
from kernels.latent_attention import LatentCache
from serving_image.models.cache_layout import CacheLayout, CacheShape, LatentShape
from serving_image.models.interface import AttentionCache
from serving_image.runtime.kv_storage import allocate_kv_cache

CPU = torch.device("cpu")
FULL, WINDOWED = CacheShape(2, 16), CacheShape(2, 16, 5)


def _allocate(*shapes: CacheShape | LatentShape, dtype: torch.dtype = torch.float32) -> list[AttentionCache]:
    return allocate_kv_cache(CacheLayout(shapes), 7, 32, dtype, CPU)


def test_layers_of_different_groups_share_memory_place_by_place() -> None:
    caches = _allocate(WINDOWED, FULL, WINDOWED, FULL, WINDOWED)
    # Groups: the full layers 1 and 3, the windowed ones 0 and 2, and 4.
    assert caches[0] is caches[1] is caches[4]
    assert caches[2] is caches[3]
    assert caches[0] is not caches[2]


def test_layers_of_one_group_have_memory_of_their_own_and_their_own_shape() -> None:
    caches = _allocate(FULL, CacheShape(1, 16), CacheShape(4, 8))
    assert len({id(cache) for cache in caches}) == 3
    assert [tuple(cache[0].shape) for cache in caches] == [(7, 2, 32, 16), (7, 1, 32, 16), (7, 4, 32, 8)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_latent_layers_keep_rows(dtype: torch.dtype) -> None:
    dense, latent = _allocate(FULL, LatentShape(24, 8), dtype=dtype)
    assert isinstance(dense, LayerCache)
    assert isinstance(latent, LatentCache)
    assert (tuple(latent.rows.shape), latent.rows.dtype) == ((7, 32, 32), dtype)
    assert (latent.latent_dim, latent.rope_dim) == (24, 8)
    scaled = dtype == torch.float8_e4m3fn
    assert (dense.scales is not None) == (latent.scale is not None) == scaled


@given(st.lists(st.sampled_from([FULL, WINDOWED, CacheShape(2, 16, 9), CacheShape(1, 16, 5)]), min_size=1, max_size=9))
def test_a_block_takes_what_the_layout_says(shapes: list[CacheShape]) -> None:
    """And within a group no two layers share memory."""
    layout = CacheLayout(tuple(shapes))
    caches = _allocate(*shapes)
    distinct = {id(cache): cache for cache in caches}.values()
    elements = sum(part.numel() for cache in distinct for part in cache[:2] if isinstance(part, torch.Tensor))
    assert elements == 7 * 32 * layout.elements_per_block_token
    for group in layout.groups:
        assert len({id(caches[layer]) for layer in group.layers}) == len(group.layers)
