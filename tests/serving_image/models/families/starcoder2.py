"""StarCoder2."""

from __future__ import annotations

from transformers import Starcoder2Config

from tests.serving_image.models.families.case import respelled, transformers_case, without

CASES = [
    transformers_case(
        "starcoder2-window",
        Starcoder2Config,
        hidden_size=48,
        intermediate_size=70,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=256,
        sliding_window=12,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
    ),
    respelled(
        transformers_case(
            "",
            Starcoder2Config,
            hidden_size=32,
            intermediate_size=50,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=12,
            max_position_embeddings=256,
            hidden_act="gelu",
            norm_epsilon=1e-3,
            use_bias=False,
            tie_word_embeddings=False,
        ),
        "starcoder2-no-biases-untied",
        fields=without("num_key_value_heads"),
    ),
]
