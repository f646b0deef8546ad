"""Attention over paged keys and values."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.attention import PLAIN, AttentionVariant, LayerCache, paged_attention
from kernels.elementwise import clip
from kernels.rotate_and_store import HeadNorms, rotate_and_store
from serving_image.models.config import AttentionConfig, NormConfig, QKNormConfig
from serving_image.models.layers.norm import Norm
from serving_image.models.layers.step import Step
from serving_image.models.parameter_store import ParameterStore


class Attention:
    """qkv ─► clip ─► rotate and store ─► attention ─► output.

    :param layer: the number of this attention layer, of its rotary embedding and of its cache group.
    """

    def __init__(
        self, config: AttentionConfig, store: ParameterStore, prefix: str, *, layer: int, rotary: int, group: int
    ) -> None:
        self._clip = config.clip
        self._scale = config.head_dim**-0.5 if config.scale is None else config.scale
        self._layer, self._rotary, self._group = layer, rotary, group
        self._qkv = store.linear(prefix + "qkv")
        self._output = store.linear(prefix + "output")
        early = config.qk_norm is not None and config.qk_norm.before_clip
        self._early_norms = _EarlyNorms(config, store, prefix) if early else None
        self._norms = None if config.qk_norm is None or early else _head_norms(config.qk_norm, store, prefix)
        self._variant = _variant(config, store, prefix)

    def __call__(self, x: Tensor, step: Step, residual: Tensor | None) -> Tensor:
        cache, paging, rotation = step.caches[self._layer], step.pagings[self._group], step.rotations[self._rotary]
        if not isinstance(cache, LayerCache):
            raise TypeError("attention over keys and values needs a LayerCache")
        qkv = self._qkv(x)
        if self._early_norms is not None:
            qkv = self._early_norms(qkv)
        if self._clip is not None:
            clip(qkv, self._clip)
        query = rotate_and_store(qkv, rotation.cos, rotation.sin, paging.slots, cache, self._norms)
        attended = paged_attention(query, cache, paging, self._scale, self._variant)
        return self._output(attended.view(x.shape[0], -1), residual)


class _EarlyNorms:
    """Norms of all queries and of all keys of a token, before they are clipped."""

    def __init__(self, config: AttentionConfig, store: ParameterStore, prefix: str) -> None:
        if config.qk_norm is None or config.qk_norm.extent != "projection":
            raise ValueError("a norm before the clip is one over the whole projection")
        norm = NormConfig(
            kind=config.qk_norm.kind,
            epsilon=config.qk_norm.epsilon,
            has_bias=config.qk_norm.has_bias,
            wide=config.qk_norm.wide,
        )
        self._query = Norm(norm, store, prefix + "query_norm", config.query_size)
        self._key = Norm(norm, store, prefix + "key_norm", config.kv_size)
        self._sizes = (config.query_size, config.kv_size, config.kv_size)

    def __call__(self, qkv: Tensor) -> Tensor:
        query, key, value = qkv.split_with_sizes(self._sizes, dim=1)
        return torch.cat((self._query(query.contiguous()), self._key(key.contiguous()), value), dim=1)


def _head_norms(config: QKNormConfig, store: ParameterStore, prefix: str) -> HeadNorms:
    query, key = prefix + "query_norm", prefix + "key_norm"
    return HeadNorms(
        store.tensor(query + ".weight"),
        store.tensor(key + ".weight"),
        config.epsilon,
        config.kind,
        config.extent,
        store.bias(query),
        store.bias(key),
        config.after_rotation,
    )


def _variant(config: AttentionConfig, store: ParameterStore, prefix: str) -> AttentionVariant:
    slopes = config.alibi_slopes
    variant = AttentionVariant(
        window=config.window,
        softcap=config.softcap,
        alibi_slopes=None if slopes is None else torch.tensor(slopes, dtype=torch.float32, device=store.device),
        sinks=store.tensor(prefix + "sinks") if config.has_sinks else None,
    )
    plain = config.window is None and config.softcap is None and slopes is None and not config.has_sinks
    return PLAIN if plain else variant
