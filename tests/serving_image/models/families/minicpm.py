"""MiniCPM."""

from __future__ import annotations

from tests.serving_image.models.families.references.checkpoint import reference_case
from tests.serving_image.models.families.references.llama import shapes
from tests.serving_image.models.families.references.minicpm import logits

_SIZES = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
}

CASES = [
    reference_case(
        "minicpm-gqa-3-tied",
        "MiniCPMForCausalLM",
        _SIZES
        | {
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "scale_emb": 12,
            "scale_depth": 1.4,
            "dim_model_base": 16,
            "tie_word_embeddings": True,
        },
        shapes,
        logits,
    ),
    reference_case(
        "minicpm-untied",
        "MiniCPMForCausalLM",
        _SIZES
        | {
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "scale_emb": 2,
            "scale_depth": 3.0,
            "dim_model_base": 64,
            "rope_theta": 500.0,
            "rms_norm_eps": 0.5,
            "tie_word_embeddings": False,
        },
        shapes,
        logits,
    ),
]
