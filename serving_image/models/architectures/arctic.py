"""Snowflake Arctic: a dense block after attention, and beside both a mixture of experts."""

from __future__ import annotations

from dataclasses import replace

from kernels.moe import Router
from serving_image.models.architectures import llama, mixtral
from serving_image.models.assembly import attention, decoder, gated_feed_forward, num_layers
from serving_image.models.config import BlockConfig, LayerConfig, pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import rms_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.mixture_settings import mixture_config
from serving_image.models.tensor_names import Origin, TensorNames

ARCHITECTURES = ("ArcticForCausalLM",)

_BESIDE: dict[str, Origin] = {
    "feed_forward.norm": "residual_layernorm",
    "feed_forward.gate_up": ("residual_mlp.w1", "residual_mlp.w3"),
    "feed_forward.down": "residual_mlp.w2",
}
_INSTEAD: dict[str, Origin] = {
    "feed_forward.norm": "post_attention_layernorm",
    "feed_forward.gate_up": ("block_sparse_moe.mlp.w1", "block_sparse_moe.mlp.w3"),
    "feed_forward.down": "block_sparse_moe.mlp.w2",
}


def describe(config: HFConfig) -> ModelDescription:
    """Every ``moe_layer_frequency``-th layer has a mixture, the others a dense block instead. With
    ``parallel_attn_mlp_res`` the mixture reads what attention reads, and a dense block follows attention."""
    rotary_attention = replace(attention(config, default_theta=1e6), window=config.optional_int("sliding_window"))
    router = Router(config.positive_int("num_experts_per_tok", default=1), renormalise=True)
    mixture = mixture_config(config, router, config.positive_int("num_local_experts", default=8))
    norm = rms_norm(config, default=1e-5)
    dense = gated_feed_forward(config)
    narrow = replace(dense, intermediate_size=config.positive_int("hidden_size"))
    beside: LayerConfig = (
        BlockConfig(operation=rotary_attention, norm=norm),
        BlockConfig(operation=narrow, norm=norm),
        BlockConfig(operation=mixture, norm=norm, reads="layer_input"),
    )
    is_parallel = config.boolean("parallel_attn_mlp_res", default=False)
    sparse = beside if is_parallel else pre_norm_layer(rotary_attention, mixture, norm)
    step = config.positive_int("moe_layer_frequency", default=2)
    dense_layers = [layer for layer in range(num_layers(config)) if (layer + 1) % step]
    layers = [sparse] * num_layers(config)
    for layer in dense_layers:
        layers[layer] = pre_norm_layer(rotary_attention, dense, norm)
    names = TensorNames(
        layer=llama.NAMES.layer,
        layers={**llama.ATTENTION, **mixtral.MIXTURE, **_BESIDE},
        top=llama.TOP,
        layer_overrides=dict.fromkeys(dense_layers, _INSTEAD),
    )
    return ModelDescription(decoder(config, layers, norm), names)
