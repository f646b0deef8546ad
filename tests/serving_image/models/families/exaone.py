"""EXAONE 3."""

from __future__ import annotations

from functools import partial

from tests.serving_image.models.families.references.checkpoint import reference_case
from tests.serving_image.models.families.references.llama import EXAONE, logits, shapes

_SIZES = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_layers": 2,
    "max_position_embeddings": 256,
    "activation_function": "silu",
}

CASES = [
    reference_case(
        "exaone-gqa-3",
        "ExaoneForCausalLM",
        _SIZES
        | {
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 20,
            "layer_norm_epsilon": 1e-5,
            "rope_theta": 1000000,
            "tie_word_embeddings": False,
        },
        partial(shapes, spelling=EXAONE),
        partial(logits, spelling=EXAONE),
    ),
    reference_case(
        "exaone-tied",
        "ExaoneForCausalLM",
        _SIZES
        | {
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "layer_norm_epsilon": 1e-2,
            "tie_word_embeddings": True,
        },
        partial(shapes, spelling=EXAONE),
        partial(logits, spelling=EXAONE),
    ),
]
