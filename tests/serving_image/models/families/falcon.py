"""Falcon."""

from __future__ import annotations

from typing import Any

from transformers import FalconConfig

from tests.serving_image.models.families.case import respelled, transformers_case

_SIZES = {"num_hidden_layers": 2, "max_position_embeddings": 256}


def _of_first_40b(fields: dict[str, Any]) -> dict[str, Any]:
    """The layout of grouped heads had no flag."""
    del fields["new_decoder_architecture"]
    return fields | {
        "architectures": ["RWForCausalLM"],
        "n_head": fields.pop("num_attention_heads"),
        "n_head_kv": fields.pop("num_kv_heads"),
        "n_layer": fields.pop("num_hidden_layers"),
    }


CASES = [
    transformers_case("falcon-7b", FalconConfig, **_SIZES, hidden_size=36, num_attention_heads=3),
    respelled(
        transformers_case(
            "",
            FalconConfig,
            **_SIZES,
            hidden_size=48,
            num_attention_heads=6,
            num_kv_heads=2,
            new_decoder_architecture=True,
            layer_norm_epsilon=1e-3,
        ),
        "falcon-40b",
        fields=_of_first_40b,
    ),
    transformers_case(
        "falcon-11b",
        FalconConfig,
        **_SIZES,
        hidden_size=64,
        num_attention_heads=4,
        num_kv_heads=2,
        ffn_hidden_size=50,
        new_decoder_architecture=True,
        num_ln_in_parallel_attn=1,
        tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
    ),
    # With this number of heads Transformers' rounding of biases to bfloat16 is exact for so few tokens. Its eager form
    # adds the biases twice: in its mask and by itself.
    transformers_case(
        "falcon-rw",
        FalconConfig,
        attention="sdpa",
        **_SIZES,
        hidden_size=32,
        num_attention_heads=4,
        alibi=True,
        multi_query=False,
        parallel_attn=False,
        bias=True,
    ),
]
