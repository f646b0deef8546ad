"""Mixtral: Mistral with a mixture of experts in every layer."""

from __future__ import annotations

from dataclasses import replace

from kernels.moe import Router
from serving_image.models.architectures import llama
from serving_image.models.assembly import attention, decoder, num_layers
from serving_image.models.config import pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import rms_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.mixture_settings import mixture_config
from serving_image.models.tensor_names import Origin, TensorNames

ARCHITECTURES = ("MixtralForCausalLM",)

MIXTURE: dict[str, Origin] = {
    "mixture.norm": "post_attention_layernorm",
    "mixture.router": "block_sparse_moe.gate",
    "mixture.experts.{}.gate_up": ("block_sparse_moe.experts.{}.w1", "block_sparse_moe.experts.{}.w3"),
    "mixture.experts.{}.down": "block_sparse_moe.experts.{}.w2",
}
NAMES = TensorNames(layer=llama.NAMES.layer, layers={**llama.ATTENTION, **MIXTURE}, top=llama.TOP)


def describe(config: HFConfig) -> ModelDescription:
    """The chosen experts' shares add up to 1."""
    windowed = replace(attention(config, default_theta=1e6), window=config.optional_int("sliding_window"))
    router = Router(config.positive_int("num_experts_per_tok", default=2), renormalise=True)
    mixture = mixture_config(config, router, config.positive_int("num_local_experts", default=8))
    norm = rms_norm(config, default=1e-5)
    layers = [pre_norm_layer(windowed, mixture, norm)] * num_layers(config)
    return ModelDescription(decoder(config, layers, norm), NAMES)
