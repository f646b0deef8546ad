"""Causal attention of a ragged batch over a paged key/value cache."""

from __future__ import annotations

from torch import Tensor

from kernels import gpu
from kernels.attention import cpu, native, reference
from kernels.attention.cache import PLAIN, AttentionVariant, Launch, LayerCache, PagedBatch
from kernels.attention.launch import LaunchPlan, plan_launch

__all__ = [
    "PLAIN",
    "AttentionVariant",
    "Launch",
    "LaunchPlan",
    "LayerCache",
    "PagedBatch",
    "paged_attention",
    "plan_launch",
]


def paged_attention(
    query: Tensor, cache: LayerCache, batch: PagedBatch, scale: float, variant: AttentionVariant = PLAIN
) -> Tensor:
    """Attend every query to its own sequence's context, causally.

    :param query: ``[tokens, heads, head_dim]``, each token's heads contiguous. ``heads`` is a multiple of the cache's
        ``kv_heads``; query head ``h`` reads KV head ``h // (heads // kv_heads)``.
    :param cache: the queries' own keys and values already stored, by :func:`kernels.rotate_and_store.rotate_and_store`.
        Slots that no context of the batch reaches may hold anything.
    :param batch: see :class:`PagedBatch`.
    :param scale: positive factor on the scores, usually ``head_dim ** -0.5``.
    :param variant: window, softcap, ALiBi and sinks, see :class:`AttentionVariant`.
    :returns: ``[tokens, heads, head_dim]``, contiguous, in the dtype of ``query``.
    :raises ValueError: a variant that does not fit the heads; on a GPU, dtypes or shapes that its form does not serve.

    The ``cpu`` form is plain torch and runs on any device; it stands in where a device has no form of its own, and
    leaves caches with scales to ``reference``.
    """
    variant.check(query.shape[1])
    if gpu.serves(query):
        from kernels.attention import triton as form

        return form.paged_attention(query, cache, batch, scale, variant)
    if native.stores(cache):
        return native.paged_attention(query, cache, batch, scale, variant)
    if cache.scales is not None:
        return reference.paged_attention(query, cache, batch, scale, variant)
    return cpu.paged_attention(query, cache, batch, scale, variant)
