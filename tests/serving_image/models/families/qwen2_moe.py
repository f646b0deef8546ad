"""Qwen2-MoE: dense layers by step and by list, windows in some layers, shares renormalised and not."""

from __future__ import annotations

from transformers import Qwen2MoeConfig

from tests.serving_image.models.families.case import transformers_case

CASES = [
    transformers_case(
        "qwen2-moe-every-second",
        Qwen2MoeConfig,
        hidden_size=48,
        intermediate_size=56,
        moe_intermediate_size=24,
        shared_expert_intermediate_size=40,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        num_experts=6,
        num_experts_per_tok=4,
        decoder_sparse_step=2,
        max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
    ),
    transformers_case(
        "qwen2-moe-windows",
        Qwen2MoeConfig,
        hidden_size=64,
        intermediate_size=80,
        moe_intermediate_size=20,
        shared_expert_intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        num_experts=5,
        num_experts_per_tok=2,
        norm_topk_prob=True,
        mlp_only_layers=[1],
        use_sliding_window=True,
        sliding_window=20,
        max_window_layers=3,
        qkv_bias=False,
        tie_word_embeddings=True,
        max_position_embeddings=256,
    ),
]
