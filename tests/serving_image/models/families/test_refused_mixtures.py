"""Fields of mixtures with values that are not served are refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serving_image.errors import StartupError
from serving_image.models.registry import ModelFolder

MIXTURES = Path(__file__).parent / "published" / "mixtures"


@pytest.mark.parametrize(
    ("name", "fields", "complaint"),
    [
        ("Mixtral-8x7B-Instruct-v0.1", {"num_experts_per_tok": 9}, "top_k is 9"),
        ("Qwen1.5-MoE-A2.7B-Chat", {"layer_types": ["sliding_attention"] * 24}, "no sliding_window is used"),
        ("DeepSeek-V2-Lite-Chat", {"norm_topk_prob": True}, "norm_topk_prob is True"),
        ("DeepSeek-V2-Lite-Chat", {"scoring_func": "sigmoid"}, "scoring_func is 'sigmoid'"),
        ("DeepSeek-V2-Lite-Chat", {"topk_method": "noaux_tc"}, 'topk_method is "noaux_tc"'),
        ("DeepSeek-V2-Lite-Chat", {"moe_layer_freq": 2}, "moe_layer_freq is 2"),
        ("Phi-3.5-MoE-instruct", {"num_experts_per_tok": 3}, "num_experts_per_tok is 3"),
        ("Phi-3.5-MoE-instruct", {"rope_scaling": {"type": "linear", "factor": 2.0}}, 'scaling "linear"'),
        ("dbrx-instruct", {"tie_word_embeddings": True}, "tie_word_embeddings is True"),
        (
            "dbrx-instruct",
            {"ffn_config": {"ffn_hidden_size": 8, "moe_normalize_expert_weights": 2.0}},
            "moe_normalize_expert_weights is 2.0",
        ),
        ("gpt-oss-20b", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ("gpt-oss-20b", {"quantization_config": {"quant_method": "mxfp4"}}, 'quantized with "mxfp4"'),
        ("gpt-oss-20b", {"layer_types": ["linear_attention"] * 24}, "linear_attention"),
    ],
)
def test_a_value_that_is_not_served_is_refused(
    name: str, fields: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    config = json.loads((MIXTURES / f"{name}.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | fields))
    with pytest.raises(StartupError, match=complaint):
        ModelFolder.open(tmp_path)
