"""Gemma 3's text models."""

from __future__ import annotations

from transformers import Gemma3TextConfig

from tests.serving_image.models.families.case import transformers_case

_SIZES = {"hidden_size": 48, "intermediate_size": 80, "max_position_embeddings": 256}

CASES = [
    transformers_case(
        "gemma3-gqa-3-linear",
        Gemma3TextConfig,
        **_SIZES,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=20,
        query_pre_attn_scalar=40,
        sliding_window=21,
        sliding_window_pattern=3,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    ),
    transformers_case(
        "gemma3-capped-untied",
        Gemma3TextConfig,
        **_SIZES,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=32,
        query_pre_attn_scalar=16,
        sliding_window=33,
        layer_types=["sliding_attention", "full_attention"],
        attention_bias=True,
        final_logit_softcapping=5.0,
        tie_word_embeddings=False,
        rms_norm_eps=0.5,
    ),
]
