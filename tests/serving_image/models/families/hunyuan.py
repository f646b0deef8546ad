"""Hunyuan (dense)."""

from __future__ import annotations

from transformers import HunYuanDenseV1Config

from tests.serving_image.models.families.case import transformers_case

_SIZES = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "max_position_embeddings": 256}

CASES = [
    transformers_case(
        "hunyuan-gqa-3-alpha",
        HunYuanDenseV1Config,
        **_SIZES,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=20,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "alpha": 1000.0, "factor": 1.0},
    ),
    transformers_case(
        "hunyuan-tied-biased",
        HunYuanDenseV1Config,
        **_SIZES,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=12,
        attention_bias=True,
        tie_word_embeddings=True,
        rms_norm_eps=0.5,
    ),
]
