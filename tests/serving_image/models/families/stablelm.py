"""StableLM."""

from __future__ import annotations

from transformers import StableLmConfig

from tests.serving_image.models.families.case import transformers_case

_SIZES = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "max_position_embeddings": 256}

CASES = [
    transformers_case(
        "stablelm-gqa-3-head-norms-parallel",
        StableLmConfig,
        **_SIZES,
        num_attention_heads=6,
        num_key_value_heads=2,
        use_parallel_residual=True,
        qk_layernorm=True,
        layer_norm_eps=0.3,
    ),
    transformers_case(
        "stablelm-tied-biased",
        StableLmConfig,
        **_SIZES,
        num_attention_heads=4,
        num_key_value_heads=4,
        use_qkv_bias=True,
        partial_rotary_factor=0.5,
        tie_word_embeddings=True,
        layer_norm_eps=0.5,
    ),
]
