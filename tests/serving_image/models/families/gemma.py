"""Gemma 1."""

from __future__ import annotations

from transformers import GemmaConfig

from tests.serving_image.models.families.case import transformers_case

_SIZES = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "max_position_embeddings": 256}

CASES = [
    transformers_case(
        "gemma-mqa",
        GemmaConfig,
        **_SIZES,
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=32,
    ),
    transformers_case(
        "gemma-untied-biased",
        GemmaConfig,
        **_SIZES,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=20,
        hidden_act="gelu",
        attention_bias=True,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0},
        tie_word_embeddings=False,
        rms_norm_eps=0.5,
    ),
]
