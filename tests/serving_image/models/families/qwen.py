"""Qwen 1."""

from __future__ import annotations

from tests.serving_image.models.families.references.checkpoint import reference_case
from tests.serving_image.models.families.references.qwen import logits, shapes

_SIZES = {
    "num_hidden_layers": 2,
    "layer_norm_epsilon": 1e-3,
    "use_dynamic_ntk": True,
    "use_logn_attn": True,
    "seq_length": 180,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": False,
}

CASES = [
    reference_case(
        "qwen-7b",
        "QWenLMHeadModel",
        _SIZES
        | {
            "hidden_size": 48,
            "kv_channels": 16,
            "num_attention_heads": 3,
            "intermediate_size": 140,
            "rotary_pct": 1.0,
            "rotary_emb_base": 10000,
            "no_bias": True,
        },
        shapes,
        logits,
    ),
    reference_case(
        "qwen-wide-heads-partly-rotated-biased",
        "QWenLMHeadModel",
        _SIZES
        | {
            "hidden_size": 32,
            "kv_channels": 20,
            "num_attention_heads": 4,
            "intermediate_size": 100,
            "rotary_pct": 0.4,
            "rotary_emb_base": 500,
            "no_bias": False,
        },
        shapes,
        logits,
    ),
]
