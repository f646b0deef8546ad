"""What the decoder needs to know about a model, under one set of names, whatever its family calls them."""

from __future__ import annotations

from dataclasses import dataclass

from serving_image.models.rotary import RotaryConfig


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """A decoder-only transformer. Sizes count elements; ``max_position`` counts tokens the model was made for."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm_epsilon: float
    rotary: RotaryConfig
    attention_bias: bool
    mlp_bias: bool
    tie_word_embeddings: bool
    max_position: int

    @property
    def query_size(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        return self.num_kv_heads * self.head_dim

    @property
    def qkv_size(self) -> int:
        return self.query_size + 2 * self.kv_size

    @property
    def kv_elements_per_token(self) -> int:
        """Elements that one token occupies in the key/value cache, over all layers."""
        return 2 * self.num_layers * self.kv_size


def decoder_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """The decoder's parameters: canonical name → shape.

    A tied output layer has no entry of its own: it is ``embedding.weight``.
    """
    hidden, intermediate = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (config.vocab_size, hidden)}
    for index in range(config.num_layers):
        layer = f"layers.{index}."
        shapes[layer + "attention_norm.weight"] = (hidden,)
        shapes[layer + "qkv.weight"] = (config.qkv_size, hidden)
        shapes[layer + "attention_output.weight"] = (hidden, config.query_size)
        shapes[layer + "mlp_norm.weight"] = (hidden,)
        shapes[layer + "gate_up.weight"] = (2 * intermediate, hidden)
        shapes[layer + "down.weight"] = (hidden, intermediate)
        if config.attention_bias:
            shapes[layer + "qkv.bias"] = (config.qkv_size,)
            shapes[layer + "attention_output.bias"] = (hidden,)
        if config.mlp_bias:
            shapes[layer + "gate_up.bias"] = (2 * intermediate,)
            shapes[layer + "down.bias"] = (hidden,)
    shapes["final_norm.weight"] = (hidden,)
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    return shapes
