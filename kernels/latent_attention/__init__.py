"""Multi-head latent attention over the compressed cache, and what fills that cache."""

from __future__ import annotations

from torch import Tensor

from kernels import gpu
from kernels.attention.cache import PagedBatch
from kernels.latent_attention import cpu, reference
from kernels.latent_attention.cache import LatentCache

__all__ = ["LatentCache", "latent_attention", "store_latent"]


def latent_attention(query: Tensor, cache: LatentCache, batch: PagedBatch, scale: float) -> Tensor:
    """Attend every query to its own sequence's context, causally, in the latent space.

    :param query: ``[tokens, heads, latent_dim + rope_dim]``, contiguous: each head's unrotated part times its keys'
        up-projection, then its rotated part.
    :param cache: the queries' own rows already stored, by :func:`store_latent`. Slots that no context of the batch
        reaches may hold anything.
    :param batch: see :class:`kernels.attention.PagedBatch`; for its ``launch``, the KV heads that
        :func:`~kernels.attention.plan_launch` asks for are :func:`kernels.latent_attention.triton.head_groups`.
    :param scale: factor on the scores; that of the heads before the absorption.
    :returns: ``[tokens, heads, latent_dim]``, contiguous, in the dtype of ``query``: the weighted sums of latents,
        which the values' up-projection turns into heads.
    :raises ValueError: on a GPU, dtypes or sizes that its kernels do not serve; see
        :func:`kernels.latent_attention.triton.latent_attention`.

    Method: DeepSeek-AI 2024, arXiv 2405.04434, with the up-projections absorbed. The ``cpu`` form, plain torch,
    takes any sizes and leaves caches with a scale to ``reference``.
    """
    if gpu.serves(query):
        from kernels.latent_attention import triton as form

        return form.latent_attention(query, cache, batch, scale)
    if cache.scale is not None:
        return reference.latent_attention(query, cache, batch, scale)
    return cpu.latent_attention(query, cache, batch, scale)


def store_latent(
    query: Tensor,
    compressed: Tensor,
    weight: Tensor,
    epsilon: float,
    cos: Tensor,
    sin: Tensor,
    slots: Tensor,
    cache: LatentCache,
) -> None:
    """Normalise each token's latent, rotate the parts of its key and its queries that carry the position, and store
    latent and key in the cache.

    :param query: ``[tokens, heads, n]``, each head's elements contiguous; the last ``rope_dim`` of each head are
        rotated in place.
    :param compressed: ``[tokens, latent_dim + rope_dim]``, each row contiguous: the joint down-projection.
    :param weight: ``[latent_dim]``, of the RMS norm of the latent; with ``epsilon`` as in
        :func:`kernels.rms_norm.rms_norm`.
    :param cos: ``[tokens, rope_dim / 2]`` float32, contiguous; pairs as in
        :func:`kernels.rotate_and_store.rotate_and_store`.
    :param sin: like ``cos``.
    :param slots: ``[tokens]`` int64; for -1 nothing is stored.
    :param cache: written in place.
    """
    if gpu.serves(query):
        import kernels.latent_attention.triton.store as form

        form.store_latent(query, compressed, weight, epsilon, cos, sin, slots, cache)
    elif cache.scale is not None:
        reference.store_latent(query, compressed, weight, epsilon, cos, sin, slots, cache)
    else:
        cpu.store_latent(query, compressed, weight, epsilon, cos, sin, slots, cache)
