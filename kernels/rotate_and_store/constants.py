"""What the Triton form is compiled for."""

from __future__ import annotations

from dataclasses import dataclass

from kernels.attention.cache import LayerCache
from kernels.gpu import Device, tile_shape
from kernels.rotate_and_store.norms import HeadNorms

_MOST_WARPS = 16


@dataclass(frozen=True, slots=True)
class Constants:
    """Passed to the kernel as one compile-time value.

    :ivar half: pairs of a head that are rotated.
    :ivar page: tokens of a cache block.
    :ivar query_norm: elements whose norm has its moments in common: 0, ``head_dim`` or all of a token's.
    :ivar key_norm: the same of keys.
    :ivar own_query_weights: whether each head has weights of its own.
    :ivar own_key_weights: the same of keys.
    :ivar query_rows: of a program.
    :ivar query_stride: rows from one token's first to the next one's: its heads or, where a norm is over all of them,
        the rows of the one program that takes the token.
    """

    heads: int
    kv_heads: int
    head_dim: int
    half: int
    page: int
    query_norm: int
    key_norm: int
    own_query_weights: bool
    own_key_weights: bool
    layer_norm: bool
    norm_after: bool
    query_rows: int
    key_rows: int
    query_stride: int
    key_stride: int


def launch_constants(
    heads: int, cache: LayerCache, half: int, norms: HeadNorms | None, device: Device
) -> tuple[Constants, dict[str, int]]:
    """And what of the tile shape the compiler takes."""
    kv_heads, head_dim = cache.kv_heads, cache.head_dim
    tile = tile_shape("rotate_and_store", "rows", f"d{max(16, _power_of_two(head_dim))}", device)
    query_rows, key_rows = tile["rows"], tile["rows"] // 2
    query_stride, key_stride, num_warps = heads, kv_heads, tile["num_warps"]
    if norms is not None and norms.over_projection:
        query_rows = query_stride = _power_of_two(heads)
        key_rows = key_stride = _power_of_two(kv_heads)
        num_warps = min(_MOST_WARPS, num_warps * max(1, query_rows // tile["rows"]))
    constants = Constants(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        half=half,
        page=cache.block_size,
        query_norm=_together(norms, heads, head_dim),
        key_norm=_together(norms, kv_heads, head_dim),
        own_query_weights=norms is not None and norms.query.numel() > head_dim,
        own_key_weights=norms is not None and norms.key.numel() > head_dim,
        layer_norm=norms is not None and norms.kind == "layer",
        norm_after=norms is not None and norms.after_rotation,
        query_rows=query_rows,
        key_rows=key_rows,
        query_stride=query_stride,
        key_stride=key_stride,
    )
    return constants, {"num_warps": num_warps, "num_stages": tile["num_stages"]}


def _together(norms: HeadNorms | None, heads: int, head_dim: int) -> int:
    """Elements whose moments are one."""
    if norms is None:
        return 0
    return heads * head_dim if norms.over_projection else head_dim


def _power_of_two(count: int) -> int:
    """The least that is no less."""
    return 1 << (count - 1).bit_length()
