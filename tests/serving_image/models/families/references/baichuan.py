"""Baichuan 1 and 2 (Yang et al. 2023, arXiv 2309.10305)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from tests.serving_image.models.families.references.checkpoint import Config, Shapes, Weights
from tests.serving_image.models.families.references.parts import alibi_slopes, attention, rms_norm, rotate


def shapes(config: Config) -> Shapes:
    """Queries, keys and values are one matrix."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    found: Shapes = {
        "model.embed_tokens.weight": (config["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
        "lm_head.weight": (config["vocab_size"], hidden),
    }
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        found |= {
            prefix + "input_layernorm.weight": (hidden,),
            prefix + "self_attn.W_pack.weight": (3 * hidden, hidden),
            prefix + "self_attn.o_proj.weight": (hidden, hidden),
            prefix + "post_attention_layernorm.weight": (hidden,),
            prefix + "mlp.gate_proj.weight": (inner, hidden),
            prefix + "mlp.up_proj.weight": (inner, hidden),
            prefix + "mlp.down_proj.weight": (hidden, inner),
        }
    return found


def logits(weights: Weights, config: Config, tokens: Tensor, *, is_rotary: bool, normalises_head: bool) -> Tensor:
    """Scores after every token.

    :param is_rotary: the 7B models; those of 13B have ALiBi.
    :param normalises_head: Baichuan 2.
    """
    heads, epsilon = config["num_attention_heads"], config["rms_norm_eps"]
    x = weights["model.embed_tokens.weight"][tokens]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        normal = rms_norm(x, weights[prefix + "input_layernorm.weight"], epsilon)
        packed = normal @ weights[prefix + "self_attn.W_pack.weight"].t()
        query, key, value = packed.unflatten(1, (3, heads, -1)).unbind(1)
        scale = query.shape[-1] ** -0.5
        if is_rotary:
            attended = attention(rotate(query), rotate(key), value, scale)
        else:
            attended = attention(query, key, value, scale, alibi_slopes(heads))
        x = x + attended @ weights[prefix + "self_attn.o_proj.weight"].t()
        normal = rms_norm(x, weights[prefix + "post_attention_layernorm.weight"], epsilon)
        gate = functional.silu(normal @ weights[prefix + "mlp.gate_proj.weight"].t())
        up = normal @ weights[prefix + "mlp.up_proj.weight"].t()
        x = x + (gate * up) @ weights[prefix + "mlp.down_proj.weight"].t()
    head = weights["lm_head.weight"]
    if normalises_head:
        head = head / head.norm(dim=1, keepdim=True)
    return rms_norm(x, weights["model.norm.weight"], epsilon) @ head.t()
