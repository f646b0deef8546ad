"""InternLM 3."""

from __future__ import annotations

from transformers import InternLM3Config

from tests.serving_image.models.families.case import transformers_case

_SIZES = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "max_position_embeddings": 256}

CASES = [
    transformers_case(
        "internlm3-gqa-3-dynamic",
        InternLM3Config,
        **_SIZES,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=20,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 50000000.0, "factor": 6.0},
    ),
    transformers_case(
        "internlm3-tied-biased",
        InternLM3Config,
        **_SIZES,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=None,
        attention_bias=True,
        mlp_bias=True,
        tie_word_embeddings=True,
        rms_norm_eps=0.5,
    ),
]
