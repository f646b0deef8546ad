"""OLMoE: with a clip that cuts and without one."""

from __future__ import annotations

from transformers import OlmoeConfig

from tests.serving_image.models.families.case import transformers_case

CASES = [
    transformers_case(
        "olmoe-gqa-3",
        OlmoeConfig,
        hidden_size=48,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        num_experts=6,
        num_experts_per_tok=3,
        pad_token_id=None,
        eos_token_id=None,
        max_position_embeddings=256,
    ),
    transformers_case(
        "olmoe-clip",
        OlmoeConfig,
        hidden_size=64,
        intermediate_size=20,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        num_experts=5,
        num_experts_per_tok=2,
        norm_topk_prob=True,
        clip_qkv=0.9,
        attention_bias=True,
        rms_norm_eps=1e-4,
        tie_word_embeddings=True,
        pad_token_id=None,
        eos_token_id=None,
        max_position_embeddings=256,
    ),
]
