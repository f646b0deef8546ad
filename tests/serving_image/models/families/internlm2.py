"""InternLM 2."""

from __future__ import annotations

from tests.serving_image.models.families.references.checkpoint import reference_case
from tests.serving_image.models.families.references.internlm2 import logits, shapes

_SIZES = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}

CASES = [
    reference_case(
        "internlm2-gqa-3",
        "InternLM2ForCausalLM",
        _SIZES
        | {
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "bias": False,
            "rope_theta": 1000000,
            "rope_scaling": {"type": "dynamic", "factor": 2.0},
        },
        shapes,
        logits,
    ),
    reference_case(
        "internlm2-biased",
        "InternLM2ForCausalLM",
        _SIZES
        | {"num_attention_heads": 4, "num_key_value_heads": 4, "bias": True, "rope_theta": 10000, "rms_norm_eps": 0.5},
        shapes,
        logits,
    ),
]
