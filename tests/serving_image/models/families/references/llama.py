"""Llama (Touvron et al. 2023, arXiv 2302.13971), under the names of those who built the same: Aquila, XVERSE and
InternLM 1, which has biases, keep Llama's; EXAONE 3 has its own."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional

from tests.serving_image.models.families.references.checkpoint import Config, Shapes, Weights
from tests.serving_image.models.families.references.parts import attention, rms_norm, rotate


class Spelling(NamedTuple):
    """Names of modules, those of a layer without their prefix, and of fields."""

    layer: str = "model.layers.{}."
    embedding: str = "model.embed_tokens"
    norm: str = "model.norm"
    attention_norm: str = "input_layernorm"
    projection: str = "self_attn.{}_proj"
    output: str = "self_attn.o_proj"
    feed_forward_norm: str = "post_attention_layernorm"
    gate: str = "mlp.gate_proj"
    up: str = "mlp.up_proj"
    down: str = "mlp.down_proj"
    depth: str = "num_hidden_layers"
    epsilon: str = "rms_norm_eps"


LLAMA = Spelling()
EXAONE = Spelling(
    "transformer.h.{}.",
    "transformer.wte",
    "transformer.ln_f",
    "ln_1",
    "attn.attention.{}_proj",
    "attn.attention.out_proj",
    "ln_2",
    "mlp.c_fc_0",
    "mlp.c_fc_1",
    "mlp.c_proj",
    "num_layers",
    "layer_norm_epsilon",
)


def head_dim(config: Config) -> int:
    share: int = config["hidden_size"] // config["num_attention_heads"]
    return int(config.get("head_dim", share))


def shapes(config: Config, spelling: Spelling = LLAMA) -> Shapes:
    """``bias`` is of the attention's four products."""
    hidden, inner, size = config["hidden_size"], config["intermediate_size"], head_dim(config)
    query, shared = config["num_attention_heads"] * size, config["num_key_value_heads"] * size
    found: Shapes = {
        spelling.embedding + ".weight": (config["vocab_size"], hidden),
        spelling.norm + ".weight": (hidden,),
    }
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = (config["vocab_size"], hidden)
    for layer in range(config[spelling.depth]):
        prefix = spelling.layer.format(layer)
        products = {spelling.projection.format("q"): (query, hidden), spelling.output: (hidden, query)}
        products |= {spelling.projection.format(name): (shared, hidden) for name in "kv"}
        if config.get("bias", False):
            found |= {f"{prefix}{name}.bias": shape[:1] for name, shape in products.items()}
        products |= {spelling.gate: (inner, hidden), spelling.up: (inner, hidden), spelling.down: (hidden, inner)}
        found |= {f"{prefix}{name}.weight": shape for name, shape in products.items()}
        found |= {f"{prefix}{name}.weight": (hidden,) for name in (spelling.attention_norm, spelling.feed_forward_norm)}
    return found


def logits(weights: Weights, config: Config, tokens: Tensor, spelling: Spelling = LLAMA) -> Tensor:
    """Scores after every token."""
    size, epsilon = head_dim(config), config[spelling.epsilon]
    theta = config["rotary"]["base"] if "rotary" in config else config.get("rope_theta", 10000.0)

    def linear(name: str, value: Tensor) -> Tensor:
        return functional.linear(value, weights[name + ".weight"], weights.get(name + ".bias"))

    x = weights[spelling.embedding + ".weight"][tokens]
    for layer in range(config[spelling.depth]):
        prefix = spelling.layer.format(layer)
        normal = rms_norm(x, weights[f"{prefix}{spelling.attention_norm}.weight"], epsilon)
        query, key, value = (
            linear(prefix + spelling.projection.format(name), normal).unflatten(1, (-1, size)) for name in "qkv"
        )
        attended = attention(rotate(query, theta), rotate(key, theta), value, size**-0.5)
        x = x + linear(prefix + spelling.output, attended)
        normal = rms_norm(x, weights[f"{prefix}{spelling.feed_forward_norm}.weight"], epsilon)
        inner = functional.silu(linear(prefix + spelling.gate, normal)) * linear(prefix + spelling.up, normal)
        x = x + linear(prefix + spelling.down, inner)
    head = "lm_head" if "lm_head.weight" in weights else spelling.embedding
    return linear(head, rms_norm(x, weights[spelling.norm + ".weight"], epsilon))
