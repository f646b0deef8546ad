"""The decoder's parameters: their names, shapes and uses, in the order in which they are loaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from serving_image.models.config import (
    AttentionConfig,
    DecoderConfig,
    FeedForwardConfig,
    LatentAttentionConfig,
    MixtureConfig,
    NormConfig,
    Operation,
)


@dataclass(frozen=True, kw_only=True)
class ParameterSpec:
    """A parameter.

    :ivar parts: rows of each of the projections that are stacked in it; empty: it is one.
    :ivar use: ``plain``: kept as it is; ``product``: the weight of a linear layer; ``gated``: of the first half of a
        gated block; ``expert``: of one expert, which goes where all of a layer's are.
    :ivar wide: kept in float32.
    """

    shape: tuple[int, ...]
    parts: tuple[int, ...] = ()
    use: Literal["plain", "product", "gated", "expert"] = "plain"
    wide: bool = False


NamedSpecs = Iterator[tuple[str, ParameterSpec]]

OPERATION_NAMES: dict[type[Operation], str] = {
    AttentionConfig: "attention",
    LatentAttentionConfig: "attention",
    FeedForwardConfig: "feed_forward",
    MixtureConfig: "mixture",
}
"""What an operation is called in the names of its parameters: ``layers.3.attention.qkv.weight``."""


def parameter_specs(config: DecoderConfig) -> dict[str, ParameterSpec]:
    """All parameters by name. A bias comes before its weight, so that both are there when a weight is laid out.

    A tied output layer has no entry of its own: it is ``embedding.weight``.
    """
    return dict(_decoder(config))


def _decoder(config: DecoderConfig) -> NamedSpecs:
    embedding, hidden = config.embedding, config.hidden_size
    width = embedding.width or hidden
    yield "embedding.weight", ParameterSpec(shape=(config.vocab_size, width))
    if embedding.num_positions:
        yield "position_embedding.weight", ParameterSpec(shape=(embedding.num_positions, hidden))
    if embedding.width:
        yield from _product("embedding_projection", (hidden, width))
    yield from _norm("embedding_norm", embedding.norm, hidden)
    for index, layer in enumerate(config.layers):
        for block in layer:
            prefix = f"layers.{index}.{OPERATION_NAMES[type(block.operation)]}."
            yield from _norm(prefix + "norm", block.norm if isinstance(block.norm, NormConfig) else None, hidden)
            yield from _operation(prefix, block.operation, hidden)
            yield from _norm(prefix + "output_norm", block.output_norm, hidden)
            yield from _norm(prefix + "stream_norm", block.stream_norm, hidden)
    yield from _norm("final_norm", config.final_norm, hidden)
    if embedding.width:
        yield from _product("output_projection", (width, hidden))
    if config.lm_head_bias:
        yield "lm_head.bias", ParameterSpec(shape=(config.vocab_size,))
    if not config.tie_word_embeddings:
        yield "lm_head.weight", ParameterSpec(shape=(config.vocab_size, width), use="product")


def _operation(prefix: str, operation: Operation, hidden: int) -> NamedSpecs:
    match operation:
        case AttentionConfig():
            return _attention(prefix, operation, hidden)
        case LatentAttentionConfig():
            return _latent_attention(prefix, operation, hidden)
        case FeedForwardConfig():
            return _feed_forward(prefix, operation, hidden)
        case MixtureConfig():
            return _mixture(prefix, operation, hidden)


def _attention(prefix: str, config: AttentionConfig, hidden: int) -> NamedSpecs:
    query, kv = config.query_size, config.kv_size
    yield from _product(prefix + "qkv", (query + 2 * kv, hidden), bias=config.qkv_bias, parts=(query, kv, kv))
    if (norm := config.qk_norm) is not None:
        for name, heads in (("query_norm", config.num_heads), ("key_norm", config.num_kv_heads)):
            size = config.head_dim * (heads if norm.per_head or norm.extent == "projection" else 1)
            spec = ParameterSpec(
                shape=(size,), parts=(config.head_dim,) * heads if norm.per_head else (), wide=norm.wide
            )
            if norm.has_bias:
                yield f"{prefix}{name}.bias", spec
            yield f"{prefix}{name}.weight", spec
    if config.has_sinks:
        yield prefix + "sinks", ParameterSpec(shape=(config.num_heads,), wide=True)
    yield from _product(prefix + "output", (hidden, query), bias=config.output_bias)


def _latent_attention(prefix: str, config: LatentAttentionConfig, hidden: int) -> NamedSpecs:
    heads, latent = config.num_heads, config.latent_dim
    query_size = heads * (config.nope_dim + config.rope_dim)
    if config.query_rank is None:
        yield from _product(prefix + "query", (query_size, hidden))
    else:
        yield from _product(prefix + "query_down", (config.query_rank, hidden), bias=config.has_bias)
        yield prefix + "query_norm.weight", ParameterSpec(shape=(config.query_rank,))
        yield from _product(prefix + "query", (query_size, config.query_rank))
    yield from _product(prefix + "latent_down", (latent + config.rope_dim, hidden), bias=config.has_bias)
    yield prefix + "latent_norm.weight", ParameterSpec(shape=(latent,))
    yield prefix + "key_up", ParameterSpec(shape=(heads, config.nope_dim, latent))
    yield prefix + "value_up", ParameterSpec(shape=(heads, config.value_dim, latent))
    yield from _product(prefix + "output", (hidden, heads * config.value_dim), bias=config.has_bias)


def _feed_forward(prefix: str, config: FeedForwardConfig, hidden: int) -> NamedSpecs:
    size = config.intermediate_size
    if config.gate:
        if config.up_bias:
            yield prefix + "gate_up.bias", ParameterSpec(shape=(2 * size,), parts=(size, size))
        yield prefix + "gate_up.weight", ParameterSpec(shape=(2 * size, hidden), parts=(size, size), use="gated")
    else:
        yield from _product(prefix + "up", (size, hidden), bias=config.up_bias)
    if config.activation == "xielu":
        yield prefix + "alpha_positive", ParameterSpec(shape=(1,), wide=True)
        yield prefix + "alpha_negative", ParameterSpec(shape=(1,), wide=True)
    yield from _product(prefix + "down", (hidden, size), bias=config.down_bias)


def _mixture(prefix: str, config: MixtureConfig, hidden: int) -> NamedSpecs:
    size = config.intermediate_size
    yield from _product(prefix + "router", (config.num_experts, hidden), bias=config.router_bias)
    if config.selection_bias:
        yield prefix + "selection_bias", ParameterSpec(shape=(config.num_experts,), wide=True)
    for index in range(config.num_experts):
        for name, rows, columns, parts in (("gate_up", 2 * size, hidden, (size, size)), ("down", hidden, size, ())):
            expert = f"{prefix}experts.{index}.{name}."
            if config.expert_bias:
                yield expert + "bias", ParameterSpec(shape=(rows,), parts=parts)
            yield expert + "weight", ParameterSpec(shape=(rows, columns), parts=parts, use="expert")
    if config.shared is not None:
        yield from _feed_forward(prefix + "shared.", config.shared, hidden)
    if config.shared_gate:
        yield from _product(prefix + "shared_gate", (1, hidden))


def _norm(name: str, config: NormConfig | None, size: int) -> NamedSpecs:
    if config is not None and config.has_weight:
        if config.has_bias:
            yield name + ".bias", ParameterSpec(shape=(size,), wide=config.wide)
        yield name + ".weight", ParameterSpec(shape=(size,), wide=config.wide)


def _product(name: str, shape: tuple[int, int], *, bias: bool = False, parts: tuple[int, ...] = ()) -> NamedSpecs:
    if bias:
        yield name + ".bias", ParameterSpec(shape=shape[:1], parts=parts)
    yield name + ".weight", ParameterSpec(shape=shape, parts=parts, use="product")
