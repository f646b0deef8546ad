"""Mixtral: Mistral with a mixture of experts in every layer."""

from __future__ import annotations

from kernels.moe import GatedActivation, Router
from serving_image.models.architectures import llama
from serving_image.models.config import AttentionConfig, DecoderConfig, LayerConfig, MixtureConfig, pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import checked_router, gated_activation, heads, rms_norm, tied
from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary import RotaryConfig
from serving_image.models.rotary_settings import rotary_config
from serving_image.models.tensor_names import Origin, TensorNames

ARCHITECTURES = ("MixtralForCausalLM",)

MIXTURE: dict[str, Origin] = {
    "mixture.norm": "post_attention_layernorm",
    "mixture.router": "block_sparse_moe.gate",
    "mixture.experts.{}.gate_up": ("block_sparse_moe.experts.{}.w1", "block_sparse_moe.experts.{}.w3"),
    "mixture.experts.{}.down": "block_sparse_moe.experts.{}.w2",
}
NAMES = TensorNames(layer="model.layers.{}.", layers={**llama.ATTENTION, **MIXTURE}, top=llama.TOP)


def describe(config: HFConfig) -> ModelDescription:
    """The chosen experts' shares add up to 1."""
    num_heads, num_kv_heads, head_dim = heads(config)
    rotary = rotary_config(config, head_dim, default_theta=1e6)
    attention = AttentionConfig(
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        rotary=rotary,
        window=config.optional_int("sliding_window"),
    )
    norm = rms_norm(config, default=1e-5)
    layer = pre_norm_layer(attention, mixture(config), norm)
    return ModelDescription(decoder(config, (layer,) * config.positive_int("num_hidden_layers"), rotary, 1e-5), NAMES)


def mixture(config: HFConfig) -> MixtureConfig:
    """Experts in the fields of Mixtral."""
    num_experts = config.positive_int("num_local_experts", default=8)
    router = Router(config.positive_int("num_experts_per_tok", default=2), renormalise=True)
    return MixtureConfig(
        num_experts=num_experts,
        intermediate_size=config.positive_int("intermediate_size"),
        router=checked_router(config, router, num_experts),
        activation=GatedActivation(gated_activation(config)),
    )


def decoder(
    config: HFConfig, layers: tuple[LayerConfig, ...], rotary: RotaryConfig, default_epsilon: float = 1e-6
) -> DecoderConfig:
    """Layers between an embedding and a root-mean-square norm, in the fields of Llama."""
    return DecoderConfig(
        vocab_size=config.positive_int("vocab_size"),
        hidden_size=config.positive_int("hidden_size"),
        layers=layers,
        final_norm=rms_norm(config, default=default_epsilon),
        max_position=rotary.extended_max_position,
        tie_word_embeddings=tied(config, default=False),
    )
