"""Gemma 1: norms of ``1 + weight``, embeddings times the root of the width, GeGLU."""

from __future__ import annotations

from dataclasses import replace

from kernels.activation import GatedKind
from serving_image.models.architectures import llama
from serving_image.models.assembly import attention, decoder, gated_feed_forward, num_layers
from serving_image.models.config import EmbeddingConfig, NormConfig, pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import rms_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.tensor_names import From, Origin
from serving_image.models.transforms import PLUS_ONE

ARCHITECTURES = ("GemmaForCausalLM",)

_ACTIVATIONS: dict[str, GatedKind] = {"gelu": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
"""``gelu`` is the official checkpoints' name for its approximation."""

FINAL_NORM: dict[str, Origin] = {"final_norm": From("model.norm", PLUS_ONE)}
NAMES = llama.names(
    {
        "attention.norm": From("input_layernorm", PLUS_ONE),
        "feed_forward.norm": From("post_attention_layernorm", PLUS_ONE),
    },
    FINAL_NORM,
)


def describe(config: HFConfig) -> ModelDescription:
    """Pre-normalised rotary attention and GeGLU."""
    config.demand("use_bidirectional_attention", False)
    norm = unit_offset_norm(config)
    layer = pre_norm_layer(
        attention(config, default_head_dim=256, bias=config.boolean("attention_bias", default=False)),
        replace(gated_feed_forward(config), gate=config.choice("hidden_act", _ACTIVATIONS, "gelu")),
        norm,
    )
    layers = [layer] * num_layers(config)
    return ModelDescription(decoder(config, layers, norm, tied=True, embedding=scaled_embedding(config)), NAMES)


def unit_offset_norm(config: HFConfig) -> NormConfig:
    """Its weights are one less than what it multiplies by."""
    return replace(rms_norm(config), wide=True)


def scaled_embedding(config: HFConfig) -> EmbeddingConfig:
    """Times the root of the hidden size."""
    return EmbeddingConfig(scale=config.positive_int("hidden_size") ** 0.5)
