"""Phi-3.5-MoE: layer norms, LongRoPE, and two experts for each token, chosen one after the other."""

from __future__ import annotations

from dataclasses import replace

from kernels.moe import Router
from serving_image.models.architectures import mixtral
from serving_image.models.assembly import attention, decoder, num_layers
from serving_image.models.config import pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import layer_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.mixture_settings import mixture_config

ARCHITECTURES = ("PhimoeForCausalLM", "PhiMoEForCausalLM")


def describe(config: HFConfig) -> ModelDescription:
    """Sparsemixer as it is at inference."""
    config.demand("num_experts_per_tok", 2)
    rotary_attention = attention(config, default_theta=1e6, bias=config.boolean("attention_bias", default=False))
    rotary = rotary_attention.rotary
    if rotary is not None and rotary.scaling not in ("default", "longrope"):
        raise config.error(f'rotary scaling "{rotary.scaling}" is not one of this family: it has longrope')
    windowed = replace(rotary_attention, window=config.optional_int("sliding_window"))
    router = Router(2, "sparsemixer", jitter=config.number("router_jitter_noise", default=0.01))
    mixture = mixture_config(config, router, config.positive_int("num_local_experts", default=16))
    norm = layer_norm(config, "rms_norm_eps")
    whole = decoder(config, [pre_norm_layer(windowed, mixture, norm)] * num_layers(config), norm)
    return ModelDescription(replace(whole, lm_head_bias=config.boolean("lm_head_bias", default=False)), mixtral.NAMES)
