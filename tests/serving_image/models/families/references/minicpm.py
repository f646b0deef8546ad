"""MiniCPM (Hu et al. 2024, arXiv 2404.06395). Its tensors are called like Llama's."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from tests.serving_image.models.families.references.checkpoint import Config, Weights
from tests.serving_image.models.families.references.parts import attention, rms_norm, rotate


def logits(weights: Weights, config: Config, tokens: Tensor) -> Tensor:
    """Scores after every token."""
    epsilon, theta, depth = config["rms_norm_eps"], config.get("rope_theta", 10000.0), config["num_hidden_layers"]
    size = config["hidden_size"] // config["num_attention_heads"]
    step = config["scale_depth"] / depth**0.5

    def linear(name: str, value: Tensor) -> Tensor:
        return functional.linear(value, weights[name + ".weight"])

    x = weights["model.embed_tokens.weight"][tokens] * config["scale_emb"]
    for layer in range(depth):
        prefix = f"model.layers.{layer}."
        normal = rms_norm(x, weights[prefix + "input_layernorm.weight"], epsilon)
        query, key, value = (
            linear(f"{prefix}self_attn.{name}_proj", normal).unflatten(1, (-1, size)) for name in "qkv"
        )
        attended = attention(rotate(query, theta), rotate(key, theta), value, size**-0.5)
        x = x + step * linear(prefix + "self_attn.o_proj", attended)
        normal = rms_norm(x, weights[prefix + "post_attention_layernorm.weight"], epsilon)
        inner = functional.silu(linear(prefix + "mlp.gate_proj", normal)) * linear(prefix + "mlp.up_proj", normal)
        x = x + step * linear(prefix + "mlp.down_proj", inner)
    width = config["hidden_size"] / config["dim_model_base"]
    head = "lm_head" if "lm_head.weight" in weights else "model.embed_tokens"
    return linear(head, rms_norm(x, weights["model.norm.weight"], epsilon) / width)
