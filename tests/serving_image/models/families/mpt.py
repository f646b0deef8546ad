"""MPT."""

from __future__ import annotations

from typing import Any

from transformers import MptConfig

from tests.serving_image.models.families.case import respelled, transformers_case
from tests.serving_image.models.families.references.checkpoint import reference_case
from tests.serving_image.models.families.references.mpt import logits, shapes

_SIZES = {"n_layers": 2, "max_seq_len": 200}


def _of_few_words(fields: dict[str, Any]) -> dict[str, Any]:
    """Only what differs from Transformers' defaults."""
    stated = {key: fields["attn_config"][key] for key in ("clip_qkv", "softmax_scale")}
    return fields | {"attn_config": stated}


CASES = [
    respelled(
        transformers_case(
            "",
            MptConfig,
            **_SIZES,
            d_model=48,
            n_heads=6,
            layer_norm_epsilon=1e-3,
            attn_config={"clip_qkv": 0.7, "softmax_scale": 0.5},
            tie_word_embeddings=False,
        ),
        "mpt-6-heads-clipped",
        fields=_of_few_words,
    ),
    reference_case(
        "mpt-foundry-biased-grouped-normalised",
        "MPTForCausalLM",
        _SIZES
        | {
            "d_model": 48,
            "n_heads": 6,
            "expansion_ratio": 2,
            "no_bias": False,
            "logit_scale": "inv_sqrt_d_model",
            "attn_config": {
                "attn_type": "grouped_query_attention",
                "kv_n_heads": 2,
                "qk_ln": True,
                "clip_qkv": 0.7,
                "softmax_scale": None,
                "alibi": True,
                "alibi_bias_max": 16,
            },
        },
        shapes,
        logits,
    ),
    reference_case(
        "mpt-foundry-learned-positions",
        "MPTForCausalLM",
        _SIZES
        | {
            "d_model": 36,
            "n_heads": 3,
            "expansion_ratio": 4,
            "no_bias": True,
            "logit_scale": 0.3,
            "attn_config": {
                "attn_type": "multiquery_attention",
                "qk_ln": False,
                "clip_qkv": None,
                "softmax_scale": None,
                "alibi": False,
            },
        },
        shapes,
        logits,
    ),
]
