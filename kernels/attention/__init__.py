"""Causal attention of a ragged batch over a paged key/value cache."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from kernels.attention import cpu
from kernels.attention.spans import QuerySpan, SlotRun

__all__ = ["QuerySpan", "SlotRun", "paged_attention"]


def paged_attention(
    query: Tensor, key_cache: Tensor, value_cache: Tensor, spans: Sequence[QuerySpan], scale: float
) -> Tensor:
    """Attend every query to its own sequence's context, causally.

    :param query: ``[tokens, heads, head_dim]``; the spans cover its rows exactly.
    :param key_cache: ``[slots, kv_heads, head_dim]``, the queries' own keys already written. ``heads`` is a multiple
        of ``kv_heads``; query head ``h`` reads KV head ``h // (heads // kv_heads)``. Slots outside the spans' runs are
        never read, so they may hold anything.
    :param value_cache: like ``key_cache``.
    :param spans: one per sequence, see :mod:`kernels.attention.spans`.
    :param scale: factor on the scores, usually ``head_dim ** -0.5``.
    :returns: ``[tokens, heads, head_dim]`` in the dtype of ``query``.

    The CPU form is plain torch and runs on any device; it stands in where a device has no form of its own.
    """
    return cpu.paged_attention(query, key_cache, value_cache, spans, scale)
