"""What one attention kernel is compiled for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Constants:
    """Passed to a kernel as one compile-time value; all fields are plain, so its ``repr`` is the compiler's cache key.

    :ivar group: query heads that share a KV head.
    :ivar padded_dim: the power of two that holds ``head_dim``; what lies between is read as zero and not stored.
    :ivar page: tokens of a cache block, a power of two.
    :ivar rows: query rows of a program: heads of one token for a decode, heads of several tokens otherwise.
    :ivar tile: keys of one step of a program's loop.
    :ivar splits: programs that may share a context.
    :ivar scaled: the cache has scales; its elements are ``float8_e4m3fn``.
    :ivar native_fp8: the device converts these itself (capability 89 and above).
    :ivar precision: of a product of float32 matrices.
    """

    kv_heads: int
    group: int
    head_dim: int
    padded_dim: int
    page: int
    rows: int
    tile: int
    splits: int
    window: int | None
    softcap: float | None
    alibi: bool
    sinks: bool
    scaled: bool
    native_fp8: bool
    precision: str
