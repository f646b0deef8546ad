"""gpt-oss: sinks, windows, biased experts, a clamp that cuts."""

from __future__ import annotations

from transformers import GptOssConfig

from tests.serving_image.models.families.case import respelled, rope_of_transformers_4, transformers_case

CASES = [
    respelled(
        transformers_case(
            "gpt-oss",
            GptOssConfig,
            hidden_size=48,
            intermediate_size=40,
            num_hidden_layers=4,
            num_attention_heads=6,
            num_key_value_heads=2,
            head_dim=20,
            num_local_experts=5,
            num_experts_per_tok=3,
            sliding_window=24,
            swiglu_limit=0.6,
            max_position_embeddings=256,
            rope_parameters={
                "rope_type": "yarn",
                "rope_theta": 150000.0,
                "factor": 8.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": False,
                "original_max_position_embeddings": 32,
            },
        ),
        "gpt-oss",
        fields=rope_of_transformers_4,
    ),
    transformers_case(
        "gpt-oss-typed-layers",
        GptOssConfig,
        hidden_size=64,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=16,
        num_local_experts=4,
        num_experts_per_tok=1,
        sliding_window=10,
        layer_types=["full_attention", "sliding_attention", "sliding_attention"],
        attention_bias=False,
        swiglu_alpha=1.3,
        tie_word_embeddings=True,
        max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    ),
]
