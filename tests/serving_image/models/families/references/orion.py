"""Orion (Chen et al. 2024, arXiv 2401.12246): Llama with layer norms."""

from __future__ import annotations

from torch import Tensor

from tests.serving_image.models.families.references.checkpoint import Config, Shapes, Weights
from tests.serving_image.models.families.references.llama_like import (
    attend,
    attention_shapes,
    feed_forward,
    feed_forward_shapes,
)
from tests.serving_image.models.families.references.parts import layer_norm


def shapes(config: Config) -> Shapes:
    """Only norms have biases."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    found: Shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    norms = ["model.norm"]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        norms += [prefix + "input_layernorm", prefix + "post_attention_layernorm"]
        found |= attention_shapes(prefix + "self_attn.", hidden, heads, config["num_key_value_heads"])
        found |= feed_forward_shapes(prefix + "mlp.", hidden, config["intermediate_size"])
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = (config["vocab_size"], hidden)
    return found | {f"{norm}.{part}": (hidden,) for norm in norms for part in ("weight", "bias")}


def logits(weights: Weights, config: Config, tokens: Tensor) -> Tensor:
    """Scores after every token."""
    size = config["hidden_size"] // config["num_attention_heads"]

    def norm(name: str, value: Tensor) -> Tensor:
        return layer_norm(value, weights[name + ".weight"], weights[name + ".bias"], config["rms_norm_eps"])

    table = weights["model.embed_tokens.weight"]
    x = table[tokens]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        normal = norm(prefix + "input_layernorm", x)
        x = x + attend(weights, prefix + "self_attn.", normal, size, config["rope_theta"])
        x = x + feed_forward(weights, prefix + "mlp.", norm(prefix + "post_attention_layernorm", x))
    return norm("model.norm", x) @ weights.get("lm_head.weight", table).t()
