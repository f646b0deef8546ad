"""DeepSeek-V3: biased choice of experts, rotary pairs of neighbours or halves, shares renormalised or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, DeepseekV3Config

from tests.serving_image.models.families.case import (
    VOCAB_SIZE,
    Case,
    Reference,
    perturb,
    respelled,
    rope_of_transformers_4,
    transformers_reference,
)


def _case(name: str, **settings: Any) -> Case:
    """Transformers' model with selection biases, which are buffers and begin at zero."""

    def write(folder: Path) -> Reference:
        torch.manual_seed(len(name))
        config = DeepseekV3Config(vocab_size=VOCAB_SIZE, initializer_range=0.2, max_position_embeddings=256, **settings)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
        perturb(model)
        for buffer_name, buffer in model.named_buffers():
            if buffer_name.endswith("e_score_correction_bias"):
                buffer.normal_(0, 0.2)
        model.save_pretrained(folder)
        return transformers_reference(model)

    return Case(name, write)


def _with_further_layer(case: Case, number: int) -> Case:
    """The same checkpoint with a layer that predicts the token after the next, which is not served."""

    def write(folder: Path) -> Reference:
        reference = case.write(folder)
        file = folder / "model.safetensors"
        further = {f"model.layers.{number}.{name}.weight": torch.ones(48, 48) for name in ("eh_proj", "mlp.up_proj")}
        save_file({**load_file(file), **further}, file, {"format": "pt"})
        return reference

    return case._replace(write=write)


CASES = [
    respelled(
        _with_further_layer(
            _case(
                "deepseek-v3-groups",
                hidden_size=48,
                intermediate_size=72,
                moe_intermediate_size=24,
                num_hidden_layers=3,
                num_attention_heads=3,
                num_key_value_heads=3,
                first_k_dense_replace=1,
                q_lora_rank=20,
                kv_lora_rank=32,
                qk_nope_head_dim=12,
                qk_rope_head_dim=8,
                v_head_dim=20,
                n_routed_experts=8,
                num_experts_per_tok=3,
                n_group=4,
                topk_group=2,
                rope_parameters={
                    "rope_type": "yarn",
                    "rope_theta": 10000.0,
                    "factor": 4.0,
                    "original_max_position_embeddings": 64,
                    "mscale": 1.0,
                    "mscale_all_dim": 1.0,
                },
            ),
            3,
        ),
        "deepseek-v3-groups",
        fields=rope_of_transformers_4,
    ),
    _case(
        "deepseek-v3-halves",
        hidden_size=64,
        intermediate_size=80,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        first_k_dense_replace=0,
        q_lora_rank=None,
        kv_lora_rank=16,
        qk_nope_head_dim=16,
        qk_rope_head_dim=16,
        v_head_dim=12,
        n_routed_experts=4,
        n_shared_experts=2,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        norm_topk_prob=False,
        routed_scaling_factor=0.8,
        rope_interleave=False,
        attention_bias=True,
    ),
]
