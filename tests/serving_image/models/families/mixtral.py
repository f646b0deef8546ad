"""Mixtral: experts, with and without a window."""

from __future__ import annotations

from transformers import MixtralConfig

from tests.serving_image.models.families.case import respelled, rope_of_transformers_4, transformers_case

CASES = [
    respelled(
        transformers_case(
            "mixtral-gqa-3",
            MixtralConfig,
            hidden_size=48,
            intermediate_size=72,
            num_hidden_layers=2,
            num_attention_heads=6,
            num_key_value_heads=2,
            head_dim=20,
            num_local_experts=5,
            num_experts_per_tok=2,
            max_position_embeddings=256,
        ),
        "mixtral-gqa-3",
        fields=rope_of_transformers_4,
    ),
    transformers_case(
        "mixtral-window-tied",
        MixtralConfig,
        hidden_size=64,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=1,
        num_local_experts=4,
        num_experts_per_tok=3,
        sliding_window=24,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0},
    ),
]
