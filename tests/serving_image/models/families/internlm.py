"""InternLM 1."""

from __future__ import annotations

from tests.serving_image.models.families.references.checkpoint import reference_case
from tests.serving_image.models.families.references.llama import logits, shapes

_SIZES = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}

CASES = [
    reference_case(
        "internlm-biased",
        "InternLMForCausalLM",
        _SIZES | {"num_attention_heads": 4, "num_key_value_heads": 4, "bias": True},
        shapes,
        logits,
    ),
    reference_case(
        "internlm-20b",
        "InternLMForCausalLM",
        _SIZES
        | {
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "bias": False,
            "rotary": {"base": 500, "type": "origin"},
            "rms_norm_eps": 1e-2,
        },
        shapes,
        logits,
    ),
]
