"""DBRX: a clip that cuts and one that does not, shares renormalised and not."""

from __future__ import annotations

from typing import Any

from transformers import DbrxConfig

from tests.serving_image.models.families.case import respelled, transformers_case


def _as_published(fields: dict[str, Any]) -> dict[str, Any]:
    """``config.json`` as it came with DBRX: the rotary base is among attention's settings only."""
    return {key: value for key, value in fields.items() if key != "rope_parameters"}


CASES = [
    respelled(
        transformers_case(
            "dbrx-clip",
            DbrxConfig,
            d_model=48,
            n_heads=6,
            n_layers=2,
            max_seq_len=256,
            attn_config={"clip_qkv": 1.1, "kv_n_heads": 2, "rope_theta": 500000.0},
            ffn_config={"ffn_hidden_size": 40, "moe_num_experts": 5, "moe_top_k": 3, "hidden_size": 48},
            rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        ),
        "dbrx-clip",
        fields=_as_published,
    ),
    transformers_case(
        "dbrx-shares",
        DbrxConfig,
        d_model=64,
        n_heads=4,
        n_layers=3,
        max_seq_len=256,
        # A clip that cuts nothing: Transformers cannot do without.
        attn_config={"clip_qkv": 1000.0, "kv_n_heads": 4, "rope_theta": 10000.0},
        ffn_config={
            "ffn_hidden_size": 24,
            "moe_num_experts": 4,
            "moe_top_k": 2,
            "moe_normalize_expert_weights": None,
            "ffn_act_fn": {"name": "gelu"},
            "hidden_size": 64,
        },
    ),
]
