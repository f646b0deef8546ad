"""Qwen3-MoE: heads wider than the hidden size's share, shares renormalised and not."""

from __future__ import annotations

from typing import Any

from transformers import Qwen3MoeConfig

from tests.serving_image.models.families.case import respelled, rope_of_transformers_4, transformers_case


def _as_published(fields: dict[str, Any]) -> dict[str, Any]:
    """``config.json`` as Transformers 4 wrote it."""
    others = {key: value for key, value in fields.items() if key != "num_local_experts"}
    return rope_of_transformers_4(others) | {"num_experts": fields["num_local_experts"]}


CASES = [
    respelled(
        transformers_case(
            "qwen3-moe",
            Qwen3MoeConfig,
            hidden_size=48,
            intermediate_size=64,
            moe_intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=6,
            num_key_value_heads=2,
            head_dim=16,
            num_experts=8,
            num_experts_per_tok=3,
            norm_topk_prob=True,
            max_position_embeddings=256,
            rope_parameters={
                "rope_type": "yarn",
                "rope_theta": 1000000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        ),
        "qwen3-moe",
        fields=_as_published,
    ),
    transformers_case(
        "qwen3-moe-windowed-biased",
        Qwen3MoeConfig,
        hidden_size=64,
        intermediate_size=56,
        moe_intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=24,
        num_experts=4,
        num_experts_per_tok=2,
        mlp_only_layers=[0],
        attention_bias=True,
        use_sliding_window=True,
        sliding_window=30,
        tie_word_embeddings=True,
        max_position_embeddings=256,
    ),
]
