"""Granite MoE: every factor, with and without the shared block."""

from __future__ import annotations

from transformers import GraniteMoeConfig, GraniteMoeSharedConfig

from tests.serving_image.models.families.case import transformers_case

CASES = [
    transformers_case(
        "granitemoe-gqa-3",
        GraniteMoeConfig,
        hidden_size=48,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        num_local_experts=5,
        num_experts_per_tok=3,
        embedding_multiplier=3.0,
        residual_multiplier=0.4,
        attention_multiplier=0.2,
        logits_scaling=2.5,
        attention_bias=True,
        max_position_embeddings=256,
    ),
    transformers_case(
        "granitemoe-plain",
        GraniteMoeConfig,
        hidden_size=32,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        num_local_experts=4,
        num_experts_per_tok=1,
        max_position_embeddings=256,
    ),
    transformers_case(
        "granitemoe-shared",
        GraniteMoeSharedConfig,
        hidden_size=64,
        intermediate_size=24,
        shared_intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        num_local_experts=4,
        num_experts_per_tok=2,
        residual_multiplier=0.22,
        attention_multiplier=0.1,
        logits_scaling=6.0,
        tie_word_embeddings=True,
        max_position_embeddings=256,
    ),
]
