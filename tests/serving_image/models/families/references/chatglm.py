"""ChatGLM 2, ChatGLM 3 and GLM-4 (Team GLM 2024, arXiv 2406.12793)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tests.serving_image.models.families.references.checkpoint import Config, Shapes, Weights
from tests.serving_image.models.families.references.parts import attention, layer_norm, rms_norm, rotate


def shapes(config: Config) -> Shapes:
    """Gate and up are one matrix, as are queries, keys and values."""
    hidden, inner, size = config["hidden_size"], config["ffn_hidden_size"], config["kv_channels"]
    heads, groups = config["num_attention_heads"], _groups(config)
    found: Shapes = {
        "transformer.embedding.word_embeddings.weight": (config["padded_vocab_size"], hidden),
        "transformer.output_layer.weight": (config["padded_vocab_size"], hidden),
    }
    norms = ["transformer.encoder.final_layernorm"]
    for layer in range(config["num_layers"]):
        prefix = f"transformer.encoder.layers.{layer}."
        norms += [prefix + "input_layernorm", prefix + "post_attention_layernorm"]
        products = {
            "self_attention.query_key_value": ((heads + 2 * groups) * size, hidden),
            "self_attention.dense": (hidden, heads * size),
            "mlp.dense_h_to_4h": (2 * inner, hidden),
            "mlp.dense_4h_to_h": (hidden, inner),
        }
        found |= {f"{prefix}{name}.weight": shape for name, shape in products.items()}
        if config["add_bias_linear"]:
            found |= {f"{prefix}{name}.bias": shape[:1] for name, shape in products.items()}
        elif config["add_qkv_bias"]:
            name = prefix + "self_attention.query_key_value"
            found[name + ".bias"] = found[name + ".weight"][:1]
    parts = ("weight",) if config["rmsnorm"] else ("weight", "bias")
    return found | {f"{name}.{part}": (hidden,) for name in norms for part in parts}


def logits(weights: Weights, config: Config, tokens: Tensor) -> Tensor:
    """Scores after every token."""

    def linear(name: str, value: Tensor) -> Tensor:
        return functional.linear(value, weights[name + ".weight"], weights.get(name + ".bias"))

    def norm(name: str, value: Tensor) -> Tensor:
        if config["rmsnorm"]:
            return rms_norm(value, weights[name + ".weight"], config["layernorm_epsilon"])
        return layer_norm(value, weights[name + ".weight"], weights[name + ".bias"], config["layernorm_epsilon"])

    x = weights["transformer.embedding.word_embeddings.weight"][tokens]
    for layer in range(config["num_layers"]):
        prefix = f"transformer.encoder.layers.{layer}."
        packed = linear(prefix + "self_attention.query_key_value", norm(prefix + "input_layernorm", x))
        query, key, value = _unpacked(packed, config)
        turned = (_half_rotated(part, 10000.0 * config.get("rope_ratio", 1)) for part in (query, key))
        attended = attention(*turned, value, config["kv_channels"] ** -0.5)
        x = x + linear(prefix + "self_attention.dense", attended)
        gate, up = linear(prefix + "mlp.dense_h_to_4h", norm(prefix + "post_attention_layernorm", x)).chunk(2, dim=1)
        x = x + linear(prefix + "mlp.dense_4h_to_h", functional.silu(gate) * up)
    return linear("transformer.output_layer", norm("transformer.encoder.final_layernorm", x))


def _groups(config: Config) -> int:
    return int(config["multi_query_group_num"] if config["multi_query_attention"] else config["num_attention_heads"])


def _unpacked(packed: Tensor, config: Config) -> tuple[Tensor, Tensor, Tensor]:
    """Shared keys and values come after all queries; others with their query, head by head."""
    size, heads, groups = config["kv_channels"], config["num_attention_heads"], _groups(config)
    if not config["multi_query_attention"]:
        query, key, value = packed.unflatten(1, (heads, 3, size)).unbind(2)
    else:
        query, key, value = packed.unflatten(1, (-1, size)).split((heads, groups, groups), dim=1)
    return query, key, value


def _half_rotated(x: Tensor, theta: float) -> Tensor:
    """The first half of a head turns, each of its even elements with the odd one after it."""
    turning, still = x.chunk(2, dim=-1)
    halves = torch.cat((turning[..., 0::2], turning[..., 1::2]), dim=-1)
    turned = torch.stack(rotate(halves, theta).chunk(2, dim=-1), dim=-1).flatten(-2)
    return torch.cat((turned, still), dim=-1)
