"""SmolLM3."""

from __future__ import annotations

from transformers import SmolLM3Config

from tests.serving_image.models.families.case import transformers_case

_SIZES = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "max_position_embeddings": 256,
    "pad_token_id": None,
}

CASES = [
    transformers_case(
        "smollm3-gqa-3-every-third",
        SmolLM3Config,
        **_SIZES,
        num_attention_heads=6,
        num_key_value_heads=2,
        no_rope_layer_interval=3,
    ),
    transformers_case(
        "smollm3-untied-windows",
        SmolLM3Config,
        **_SIZES,
        num_attention_heads=4,
        num_key_value_heads=4,
        no_rope_layers=[0, 1, 1],
        use_sliding_window=True,
        sliding_window=21,
        attention_bias=True,
        mlp_bias=True,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 500000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 64,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
        },
        tie_word_embeddings=False,
        rms_norm_eps=0.5,
    ),
]
