"""Snowflake Arctic: mixtures beside dense blocks, in every layer or every second; and in place of them."""

from __future__ import annotations

from tests.serving_image.models.families.references.arctic import logits, shapes
from tests.serving_image.models.families.references.checkpoint import reference_case

_SIZES = {"max_position_embeddings": 256, "rms_norm_eps": 1e-5, "hidden_act": "silu"}

CASES = [
    reference_case(
        "arctic-beside",
        "ArcticForCausalLM",
        _SIZES
        | {
            "hidden_size": 48,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "num_local_experts": 5,
            "num_experts_per_tok": 2,
            "moe_layer_frequency": 1,
            "parallel_attn_mlp_res": True,
            "rope_theta": 10000.0,
        },
        shapes,
        logits,
    ),
    reference_case(
        "arctic-beside-every-second",
        "ArcticForCausalLM",
        _SIZES
        | {
            "hidden_size": 32,
            "intermediate_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "num_local_experts": 4,
            "num_experts_per_tok": 3,
            "moe_layer_frequency": 2,
            "parallel_attn_mlp_res": True,
            "rope_theta": 1000000.0,
            "tie_word_embeddings": True,
        },
        shapes,
        logits,
    ),
    reference_case(
        "arctic-in-turns",
        "ArcticForCausalLM",
        _SIZES
        | {
            "hidden_size": 64,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "num_local_experts": 4,
            "num_experts_per_tok": 1,
            "moe_layer_frequency": 2,
            "parallel_attn_mlp_res": False,
            "rope_theta": 10000.0,
        },
        shapes,
        logits,
    ),
]
