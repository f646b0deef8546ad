"""DeciLM-7B and Nemotron-NAS (Bercovich et al. 2024, arXiv 2411.19146): Llama with layers found by search."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from tests.serving_image.models.families.references.checkpoint import Config, Shapes, Weights
from tests.serving_image.models.families.references.llama_like import (
    attend,
    attention_shapes,
    feed_forward,
    feed_forward_shapes,
)
from tests.serving_image.models.families.references.parts import rms_norm


class _Layer(NamedTuple):
    """Zero: the layer has none."""

    kv_heads: int
    width: int


def _layers(config: Config) -> list[_Layer]:
    if "num_key_value_heads_per_layer" in config:
        return [_Layer(heads, config["intermediate_size"]) for heads in config["num_key_value_heads_per_layer"]]
    found = []
    for block in config["block_configs"]:
        attention, inner = block["attention"], block["ffn"]
        kv_heads = 0 if attention["no_op"] else config["num_attention_heads"] // attention["n_heads_in_group"]
        width = 0 if inner["no_op"] else int(2 * inner["ffn_mult"] * config["hidden_size"] / 3)
        found.append(_Layer(kv_heads, 256 * math.ceil(width / 256)))
    return found


def shapes(config: Config) -> Shapes:
    """A block that is not there has no norm either."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    found: Shapes = {
        "model.embed_tokens.weight": (config["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
        "lm_head.weight": (config["vocab_size"], hidden),
    }
    for index, layer in enumerate(_layers(config)):
        prefix = f"model.layers.{index}."
        if layer.kv_heads:
            found[prefix + "input_layernorm.weight"] = (hidden,)
            found |= attention_shapes(prefix + "self_attn.", hidden, heads, layer.kv_heads)
        if layer.width:
            found[prefix + "post_attention_layernorm.weight"] = (hidden,)
            found |= feed_forward_shapes(prefix + "mlp.", hidden, layer.width)
    return found


def logits(weights: Weights, config: Config, tokens: Tensor) -> Tensor:
    """Scores after every token."""
    size = config["hidden_size"] // config["num_attention_heads"]

    def norm(name: str, value: Tensor) -> Tensor:
        return rms_norm(value, weights[name + ".weight"], config["rms_norm_eps"])

    x = weights["model.embed_tokens.weight"][tokens]
    for index, layer in enumerate(_layers(config)):
        prefix = f"model.layers.{index}."
        if layer.kv_heads:
            normal = norm(prefix + "input_layernorm", x)
            x = x + attend(weights, prefix + "self_attn.", normal, size, config["rope_theta"])
        if layer.width:
            x = x + feed_forward(weights, prefix + "mlp.", norm(prefix + "post_attention_layernorm", x))
    return norm("model.norm", x) @ weights["lm_head.weight"].t()
