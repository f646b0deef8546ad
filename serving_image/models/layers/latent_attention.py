"""Multi-head latent attention over the compressed cache (DeepSeek-AI 2024, arXiv 2405.04434)."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.latent_attention import LatentCache, latent_attention, store_latent
from kernels.rms_norm import rms_norm
from serving_image.models.config import LatentAttentionConfig
from serving_image.models.layers.step import Step
from serving_image.models.parameter_store import ParameterStore


class LatentAttention:
    """The keys' up-projection is absorbed by the queries and the values' by the output, so that attention works on the
    compressed rows.

    :param layer: the number of this attention layer, of its rotary embedding and of its cache group.
    """

    def __init__(
        self, config: LatentAttentionConfig, store: ParameterStore, prefix: str, *, layer: int, rotary: int, group: int
    ) -> None:
        self._config = config
        self._layer, self._rotary, self._group = layer, rotary, group
        compressed = config.query_rank is not None
        self._query_down = store.linear(prefix + "query_down") if compressed else None
        self._query_norm = store.tensor(prefix + "query_norm.weight") if compressed else None
        self._query = store.linear(prefix + "query")
        self._latent_down = store.linear(prefix + "latent_down")
        self._latent_norm = store.tensor(prefix + "latent_norm.weight")
        self._key_up = store.tensor(prefix + "key_up")
        self._value_up = store.tensor(prefix + "value_up")
        self._output = store.linear(prefix + "output")

    def __call__(self, x: Tensor, step: Step, residual: Tensor | None) -> Tensor:
        config = self._config
        cache, paging, rotation = step.caches[self._layer], step.pagings[self._group], step.rotations[self._rotary]
        if not isinstance(cache, LatentCache):
            raise TypeError("latent attention needs a LatentCache")
        query = self._queries(x)
        compressed = self._latent_down(x)
        store_latent(
            query, compressed, self._latent_norm, config.epsilon, rotation.cos, rotation.sin, paging.slots, cache
        )
        absorbed = self._absorb(query)
        attended = latent_attention(absorbed, cache, paging, config.scale)
        # [heads, tokens, latent] times [heads, latent, value]
        values = torch.bmm(attended.transpose(0, 1), self._value_up.transpose(1, 2)).transpose(0, 1)
        return self._output(values.reshape(x.shape[0], -1), residual)

    def _queries(self, x: Tensor) -> Tensor:
        """``[tokens, heads, nope + rope]``, not rotated."""
        if self._query_down is not None and self._query_norm is not None:
            x = rms_norm(self._query_down(x), self._query_norm, self._config.epsilon)
        return self._query(x).view(x.shape[0], self._config.num_heads, -1)

    def _absorb(self, query: Tensor) -> Tensor:
        """``[tokens, heads, latent + rope]``."""
        config = self._config
        absorbed = query.new_empty(query.shape[0], config.num_heads, config.latent_dim + config.rope_dim)
        unrotated = query[..., : config.nope_dim].transpose(0, 1)
        absorbed[..., : config.latent_dim] = torch.bmm(unrotated, self._key_up).transpose(0, 1)
        absorbed[..., config.latent_dim :] = query[..., config.nope_dim :]
        return absorbed
