"""Qwen3: Qwen2 without biases and with a norm on each head's query and key."""

from __future__ import annotations

from dataclasses import replace

from serving_image.models.architectures import llama, qwen2
from serving_image.models.assembly import attention
from serving_image.models.config import QKNormConfig
from serving_image.models.description import ModelDescription
from serving_image.models.fields import rms_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.tensor_names import Origin

ARCHITECTURES = ("Qwen3ForCausalLM",)

HEAD_NORMS: dict[str, Origin] = {"attention.query_norm": "self_attn.q_norm", "attention.key_norm": "self_attn.k_norm"}
NAMES = llama.names(HEAD_NORMS)


def describe(config: HFConfig) -> ModelDescription:
    """Pre-normalised rotary attention and SwiGLU; the last layers may have a window."""
    plain = attention(config, default_head_dim=128, bias=config.boolean("attention_bias", default=False))
    normed = replace(plain, qk_norm=QKNormConfig(kind="rms", epsilon=rms_norm(config).epsilon))
    return ModelDescription(qwen2.windowed_decoder(config, normed), NAMES)
