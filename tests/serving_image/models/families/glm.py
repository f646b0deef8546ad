"""GLM."""

from __future__ import annotations

from transformers import GlmConfig

from tests.serving_image.models.families.case import transformers_case

_SIZES = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "max_position_embeddings": 256,
    "pad_token_id": None,
}

CASES = [
    transformers_case(
        "glm-gqa-3",
        GlmConfig,
        **_SIZES,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=20,
    ),
    transformers_case(
        "glm-tied-unbiased",
        GlmConfig,
        **_SIZES,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=16,
        attention_bias=False,
        partial_rotary_factor=0.25,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        tie_word_embeddings=True,
        rms_norm_eps=0.5,
    ),
]
