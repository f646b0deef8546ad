"""Causal attention of a ragged batch over a paged key/value cache."""

from __future__ import annotations

from torch import Tensor

from kernels.attention import cpu, native
from kernels.attention.cache import LayerCache, PagedBatch

__all__ = ["LayerCache", "PagedBatch", "paged_attention"]


def paged_attention(query: Tensor, cache: LayerCache, batch: PagedBatch, scale: float) -> Tensor:
    """Attend every query to its own sequence's context, causally.

    :param query: ``[tokens, heads, head_dim]``, each token's heads contiguous. ``heads`` is a multiple of the cache's
        ``kv_heads``; query head ``h`` reads KV head ``h // (heads // kv_heads)``.
    :param cache: the queries' own keys and values already stored, by :func:`kernels.rotate_and_store.rotate_and_store`.
        Slots that no context of the batch reaches may hold anything.
    :param batch: see :class:`PagedBatch`.
    :param scale: factor on the scores, usually ``head_dim ** -0.5``.
    :returns: ``[tokens, heads, head_dim]``, contiguous, in the dtype of ``query``.

    The ``cpu`` form is plain torch and runs on any device; it stands in where a device has no form of its own.
    """
    if native.stores(cache):
        return native.paged_attention(query, cache, batch, scale)
    return cpu.paged_attention(query, cache, batch, scale)
