"""Orion."""

from __future__ import annotations

from tests.serving_image.models.families.references.checkpoint import reference_case
from tests.serving_image.models.families.references.orion import logits, shapes

_SIZES = {"num_hidden_layers": 2, "rms_norm_eps": 1e-3, "max_position_embeddings": 256, "rope_scaling": None}

CASES = [
    reference_case(
        "orion",
        "OrionForCausalLM",
        _SIZES
        | {
            "hidden_size": 36,
            "intermediate_size": 50,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
        },
        shapes,
        logits,
    ),
    reference_case(
        "orion-gqa-3-tied",
        "OrionForCausalLM",
        _SIZES
        | {
            "hidden_size": 48,
            "intermediate_size": 70,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "rope_theta": 500.0,
            "tie_word_embeddings": True,
        },
        shapes,
        logits,
    ),
]
