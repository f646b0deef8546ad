"""Baichuan."""

from __future__ import annotations

from functools import partial

from tests.serving_image.models.families.references.baichuan import logits, shapes
from tests.serving_image.models.families.references.checkpoint import reference_case

_SIZES = {"num_hidden_layers": 2, "rms_norm_eps": 1e-3}
_7B = {"hidden_size": 36, "intermediate_size": 50, "num_attention_heads": 3, "max_position_embeddings": 256}
_13B = {"hidden_size": 48, "intermediate_size": 70, "num_attention_heads": 6, "model_max_length": 256}

CASES = [
    reference_case(
        "baichuan-7b",
        "BaiChuanForCausalLM",
        _SIZES | _7B,
        shapes,
        partial(logits, is_rotary=True, normalises_head=False),
    ),
    reference_case(
        "baichuan-13b",
        "BaichuanForCausalLM",
        _SIZES | _13B,
        shapes,
        partial(logits, is_rotary=False, normalises_head=False),
    ),
    reference_case(
        "baichuan2-7b",
        "BaichuanForCausalLM",
        _SIZES | _7B | {"z_loss_weight": 0},
        shapes,
        partial(logits, is_rotary=True, normalises_head=True),
    ),
    reference_case(
        "baichuan2-13b",
        "BaichuanForCausalLM",
        _SIZES | _13B | {"z_loss_weight": 0},
        shapes,
        partial(logits, is_rotary=False, normalises_head=True),
    ),
]
