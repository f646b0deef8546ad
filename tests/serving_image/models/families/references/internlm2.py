"""InternLM 2 (Cai et al. 2024, arXiv 2403.17297)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from tests.serving_image.models.families.references.checkpoint import Config, Shapes, Weights
from tests.serving_image.models.families.references.parts import attention, rms_norm, rotate


def shapes(config: Config) -> Shapes:
    """Each group of ``wqkv`` has its queries, then its key, then its value."""
    hidden, inner, groups = config["hidden_size"], config["intermediate_size"], config["num_key_value_heads"]
    size = hidden // config["num_attention_heads"]
    found: Shapes = {
        "model.tok_embeddings.weight": (config["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
        "output.weight": (config["vocab_size"], hidden),
    }
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        products = {"attention.wqkv": (hidden + 2 * groups * size, hidden), "attention.wo": (hidden, hidden)}
        if config["bias"]:
            found |= {f"{prefix}{name}.bias": shape[:1] for name, shape in products.items()}
        products |= {f"feed_forward.{name}": (inner, hidden) for name in ("w1", "w3")}
        products["feed_forward.w2"] = (hidden, inner)
        found |= {f"{prefix}{name}.weight": shape for name, shape in products.items()}
        found |= {f"{prefix}{name}.weight": (hidden,) for name in ("attention_norm", "ffn_norm")}
    return found


def logits(weights: Weights, config: Config, tokens: Tensor) -> Tensor:
    """Scores after every token."""
    groups, epsilon, theta = config["num_key_value_heads"], config["rms_norm_eps"], config["rope_theta"]
    size = config["hidden_size"] // config["num_attention_heads"]

    def linear(name: str, value: Tensor) -> Tensor:
        return functional.linear(value, weights[name + ".weight"], weights.get(name + ".bias"))

    x = weights["model.tok_embeddings.weight"][tokens]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        normal = rms_norm(x, weights[prefix + "attention_norm.weight"], epsilon)
        packed = linear(prefix + "attention.wqkv", normal).unflatten(1, (groups, -1, size))
        query, key, value = packed[:, :, :-2].flatten(1, 2), packed[:, :, -2], packed[:, :, -1]
        attended = attention(rotate(query, theta), rotate(key, theta), value, size**-0.5)
        x = x + linear(prefix + "attention.wo", attended)
        normal = rms_norm(x, weights[prefix + "ffn_norm.weight"], epsilon)
        gate = functional.silu(linear(prefix + "feed_forward.w1", normal))
        x = x + linear(prefix + "feed_forward.w2", gate * linear(prefix + "feed_forward.w3", normal))
    return linear("output", rms_norm(x, weights["model.norm.weight"], epsilon))
