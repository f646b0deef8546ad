"""What a family does not serve is refused when its configuration is read, by name, and never left out in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serving_image.errors import StartupError
from serving_image.models.registry import ModelFolder

PUBLISHED = Path(__file__).parent / "published"

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("tiny/Llama-3.1-8B-Instruct", {"hidden_act": "mish"}, "hidden_act"),
    ("tiny/Llama-3.1-8B-Instruct", {"num_key_value_heads": 4}, "key/value heads"),
    ("tiny/Llama-3.1-8B-Instruct", {"rope_scaling": {"rope_type": "proportional", "factor": 2.0}}, "proportional"),
    ("tiny/Mistral-7B-Instruct-v0.1", {"sliding_window": -1}, "sliding_window"),
    ("tiny/Qwen2.5-7B-Instruct", {"layer_types": ["full_attention", "sliding_attention"] * 2}, "sliding_window"),
    ("tiny/Qwen3-0.6B", {"layer_types": ["full_attention"] * 3}, "layer_types"),
    ("tiny/Qwen3-0.6B", {"layer_types": ["linear_attention"] * 4}, "layer_types"),
    ("tiny/gemma-2b", {"hidden_act": "silu"}, "hidden_act"),
    ("tiny/gemma-2-2b-it", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ("tiny/gemma-3-1b-it", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
    ("tiny/gemma-3-1b-it", {"rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0}}, "rope_parameters"),
    ("tiny/SmolLM3-3B", {"no_rope_layers": [1, 1, 1]}, "no_rope_layers"),
    ("tiny/EXAONE-4.0-1.2B", {"layer_types": ["sliding_attention"] * 4}, "sliding_window"),
    ("tiny/Hunyuan-7B-Instruct", {"use_cla": True}, "use_cla"),
    ("tiny/Hunyuan-7B-Instruct", {"use_qk_norm": False}, "use_qk_norm"),
    ("tiny/Apertus-8B-Instruct-2509", {"hidden_act": "relu2"}, "hidden_act"),
    ("tiny/Apertus-8B-Instruct-2509", {"post_norm": True}, "post_norm"),
    ("tiny/Phi-4-mini-instruct", {"lm_head_bias": True}, "lm_head_bias"),
    ("tiny/Phi-4-mini-instruct", {"partial_rotary_factor": 0.4}, "rotated in pairs"),
    ("tiny/c4ai-command-r7b-12-2024", {"position_embedding_type": "rope_neox"}, "position_embedding_type"),
    ("tiny/c4ai-command-r7b-12-2024", {"use_parallel_block": False}, "use_parallel_block"),
    ("whole/chatglm2-6b", {"quantization_bit": 4}, "quantization_bit"),
    (
        "whole/chatglm2-6b",
        {"apply_residual_connection_post_layernorm": True},
        "apply_residual_connection_post_layernorm",
    ),
    ("whole/chatglm2-6b", {"position_encoding_2d": True}, "position_encoding_2d"),
    ("whole/chatglm3-6b", {"original_rope": False}, "original_rope"),
    ("whole/internlm-chat-7b", {"rotary": {"base": 10000, "type": "linear"}}, "linear"),
    ("whole/MiniCPM-2B-sft-bf16", {"num_experts": 8}, "num_experts"),
]


@pytest.mark.parametrize(("published", "change", "said"), REFUSED)
def test_the_error_names_it(published: str, change: dict[str, Any], said: str, tmp_path: Path) -> None:
    fields = json.loads((PUBLISHED / f"{published}.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(fields | change))
    with pytest.raises(StartupError) as refused:
        ModelFolder.open(tmp_path)
    assert said in str(refused.value)
