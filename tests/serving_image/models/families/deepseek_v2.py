"""DeepSeek-V2: queries compressed or not, experts of the best groups or of all, YaRN that sharpens the scores."""

from __future__ import annotations

from transformers import DeepseekV2Config

from tests.serving_image.models.families.case import respelled, rope_of_transformers_4, transformers_case

CASES = [
    respelled(
        transformers_case(
            "deepseek-v2-groups",
            DeepseekV2Config,
            hidden_size=48,
            intermediate_size=72,
            moe_intermediate_size=24,
            num_hidden_layers=3,
            num_attention_heads=3,
            first_k_dense_replace=1,
            q_lora_rank=20,
            kv_lora_rank=32,
            qk_nope_head_dim=12,
            qk_rope_head_dim=8,
            v_head_dim=20,
            n_routed_experts=6,
            n_shared_experts=2,
            num_experts_per_tok=2,
            topk_method="group_limited_greedy",
            n_group=3,
            topk_group=2,
            routed_scaling_factor=1.7,
            rms_norm_eps=1e-5,
            attention_bias=True,
            max_position_embeddings=256,
            rope_parameters={
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "original_max_position_embeddings": 32,
                "beta_fast": 32,
                "beta_slow": 1,
                "mscale": 0.707,
                "mscale_all_dim": 0.707,
            },
        ),
        "deepseek-v2-groups",
        fields=rope_of_transformers_4,
    ),
    transformers_case(
        "deepseek-v2-lite",
        DeepseekV2Config,
        hidden_size=64,
        intermediate_size=80,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        q_lora_rank=None,
        kv_lora_rank=16,
        qk_nope_head_dim=16,
        qk_rope_head_dim=16,
        v_head_dim=12,
        n_routed_experts=4,
        n_shared_experts=1,
        num_experts_per_tok=3,
        tie_word_embeddings=True,
        max_position_embeddings=256,
    ),
]
