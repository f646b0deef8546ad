"""Gemma 2."""

from __future__ import annotations

from transformers import Gemma2Config

from tests.serving_image.models.families.case import transformers_case

_SIZES = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "max_position_embeddings": 256}

CASES = [
    transformers_case(
        "gemma2-gqa-3",
        Gemma2Config,
        **_SIZES,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=20,
        query_pre_attn_scalar=40,
        sliding_window=21,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=5.0,
    ),
    transformers_case(
        "gemma2-uncapped-untied",
        Gemma2Config,
        **_SIZES,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=16,
        query_pre_attn_scalar=24,
        sliding_window=33,
        attn_logit_softcapping=None,
        final_logit_softcapping=None,
        attention_bias=True,
        layer_types=["full_attention", "sliding_attention", "sliding_attention"],
        tie_word_embeddings=False,
        rms_norm_eps=0.5,
    ),
]
