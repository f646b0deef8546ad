"""DeciLM and Nemotron-NAS."""

from __future__ import annotations

from typing import Any

from tests.serving_image.models.families.references.checkpoint import reference_case
from tests.serving_image.models.families.references.decilm import logits, shapes


def _block(group: int | None, multiple: float | None) -> dict[str, Any]:
    """A layer of Nemotron-NAS; None: without attention, or without feed-forward."""
    return {
        "attention": {"n_heads_in_group": group, "no_op": group is None, "replace_with_linear": False},
        "ffn": {"ffn_mult": multiple, "no_op": multiple is None, "replace_with_linear": False},
    }


_SIZES = {"rms_norm_eps": 1e-3, "max_position_embeddings": 256, "attention_bias": False, "tie_word_embeddings": False}

CASES = [
    reference_case(
        "decilm-7b",
        "DeciLMForCausalLM",
        _SIZES
        | {
            "hidden_size": 48,
            "intermediate_size": 70,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_key_value_heads_per_layer": [1, 3, 2],
            "rope_theta": 10000.0,
        },
        shapes,
        logits,
    ),
    reference_case(
        "nemotron-nas",
        "DeciLMForCausalLM",
        _SIZES
        | {
            "hidden_size": 48,
            "intermediate_size": None,
            "num_hidden_layers": 5,
            "num_attention_heads": 4,
            "num_key_value_heads": None,
            "block_configs": [
                _block(4, 2.625),
                _block(None, 10.0),
                _block(2, None),
                _block(None, None),
                _block(1, 0.5),
            ],
            "rope_theta": 500.0,
        },
        shapes,
        logits,
    ),
]
