"""Granite 3 MoE: Granite's factors over a mixture of experts, in some checkpoints beside a block for every token."""

from __future__ import annotations

from dataclasses import replace

from kernels.moe import Router
from serving_image.models.architectures import granite
from serving_image.models.assembly import attention, decoder, gated_feed_forward, num_layers
from serving_image.models.config import EmbeddingConfig, MixtureConfig, pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import rms_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.mixture_settings import mixture_config
from serving_image.models.tensor_names import From, Origin, TensorNames
from serving_image.models.transforms import item, scaled

ARCHITECTURES = ("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM")


def describe(config: HFConfig) -> ModelDescription:
    """Factors on what a block adds to the stream, and on the logits, stand in the weights."""
    norm, mixture = rms_norm(config), _mixture(config)
    scaled_attention = replace(
        attention(config, bias=config.boolean("attention_bias", default=False)),
        scale=config.number("attention_multiplier", default=1.0),
    )
    whole = decoder(
        config,
        [pre_norm_layer(scaled_attention, mixture, norm)] * num_layers(config),
        replace(norm, wide=True),
        embedding=EmbeddingConfig(scale=config.number("embedding_multiplier", default=1.0)),
    )
    return ModelDescription(whole, _names(config, mixture.num_experts))


def _mixture(config: HFConfig) -> MixtureConfig:
    router = Router(config.positive_int("num_experts_per_tok", default=2), renormalise=True)
    mixture = mixture_config(config, router, config.positive_int("num_local_experts", default=8))
    size = config.count("shared_intermediate_size", default=0)
    if config.architecture == "GraniteMoeForCausalLM" or not size:
        return mixture
    return replace(mixture, shared=replace(gated_feed_forward(config), intermediate_size=size))


def _names(config: HFConfig, num_experts: int) -> TensorNames:
    """All experts are in one tensor, the gate's rows before the others."""
    factor = config.number("residual_multiplier", default=1.0)
    names = granite.names_with_factors(residual=factor, logits=1 / config.number("logits_scaling", default=1.0))
    residual = scaled(factor)
    experts: dict[str, Origin] = {}
    for index in range(num_experts):
        expert, one = f"mixture.experts.{index}", item(index, num_experts)
        experts[f"{expert}.gate_up"] = From("block_sparse_moe.input_linear", one)
        experts[f"{expert}.down"] = From("block_sparse_moe.output_linear", one.then(residual))
    mixture: dict[str, Origin] = {
        "mixture.norm": "post_attention_layernorm",
        "mixture.router": "block_sparse_moe.router.layer",
        "mixture.shared.gate_up": "shared_mlp.input_linear",
        "mixture.shared.down": From("shared_mlp.output_linear", residual),
    }
    return replace(names, layers={**names.layers, **mixture, **experts})
