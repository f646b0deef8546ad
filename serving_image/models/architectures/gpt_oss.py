"""gpt-oss: heads that may attend to nothing, windows in every second layer, experts with biases and a clamped gate."""

from __future__ import annotations

from dataclasses import replace

from kernels.moe import GPT_OSS, Router
from serving_image.models.architectures import llama
from serving_image.models.assembly import FULL, SLIDING, attention, decoder, layer_types, num_layers
from serving_image.models.config import MixtureConfig, pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import heads, rms_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.mixture_settings import mixture_config
from serving_image.models.rotary_settings import rope_section, rotary_config
from serving_image.models.tensor_names import From, Origin, TensorNames
from serving_image.models.transforms import TRANSPOSE, alternating, item

ARCHITECTURES = ("GptOssForCausalLM",)

_YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}
"""Where the configuration says nothing."""


def describe(config: HFConfig) -> ModelDescription:
    """The chosen experts' shares add up to 1."""
    head_dim = heads(config, default_head_dim=64).head_dim
    rope = rope_section(config) or HFConfig(config.path, _YARN)
    full = replace(
        attention(
            config,
            rotary=rotary_config(config, head_dim, rope=rope, default_theta=150000.0),
            default_head_dim=64,
            bias=config.boolean("attention_bias", default=True),
        ),
        has_sinks=True,
    )
    sliding = replace(full, window=config.optional_int("sliding_window", 128))
    types = layer_types(config, [FULL if layer % 2 else SLIDING for layer in range(num_layers(config))])
    norm, mixture = rms_norm(config, default=1e-5), _mixture(config)
    layers = [pre_norm_layer(sliding if kind == SLIDING else full, mixture, norm) for kind in types]
    return ModelDescription(decoder(config, layers, norm), _names(mixture.num_experts))


def _mixture(config: HFConfig) -> MixtureConfig:
    config.demand("hidden_act", "silu")
    router = Router(config.positive_int("num_experts_per_tok", default=4), renormalise=True)
    return replace(
        mixture_config(config, router, config.positive_int("num_local_experts", default=128)),
        activation=GPT_OSS._replace(
            alpha=config.number("swiglu_alpha", default=GPT_OSS.alpha),
            limit=config.number("swiglu_limit", default=GPT_OSS.limit),
        ),
        expert_bias=True,
        router_bias=True,
    )


def _names(num_experts: int) -> TensorNames:
    """All experts are in one tensor, with inputs before outputs, in which gate and up alternate."""
    experts: dict[str, Origin] = {}
    for index in range(num_experts):
        expert, one = f"mixture.experts.{index}", item(index, num_experts)
        gates = one.then(alternating())
        experts[f"{expert}.gate_up.weight"] = From("mlp.experts.gate_up_proj", one.then(TRANSPOSE).then(alternating()))
        experts[f"{expert}.gate_up.bias"] = From("mlp.experts.gate_up_proj_bias", gates)
        experts[f"{expert}.down.weight"] = From("mlp.experts.down_proj", one.then(TRANSPOSE))
        experts[f"{expert}.down.bias"] = From("mlp.experts.down_proj_bias", one)
    return TensorNames(
        layer=llama.NAMES.layer,
        layers={
            **llama.ATTENTION,
            "attention.sinks": "self_attn.sinks",
            "mixture.norm": "post_attention_layernorm",
            "mixture.router": "mlp.router",
            **experts,
        },
        top=llama.TOP,
    )
