"""gpt-oss: heads that may attend to nothing, windows in every second layer, experts with biases and a clamped gate."""

from __future__ import annotations

from kernels.moe import GPT_OSS, Router
from serving_image.models.architectures import llama, mixtral
from serving_image.models.config import AttentionConfig, MixtureConfig, pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import checked_router, heads, layer_windows, rms_norm
from serving_image.models.hf_config import HFConfig
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
    num_heads, num_kv_heads, head_dim = heads(config, default_head_dim=64)
    rope = rope_section(config) or HFConfig(config.path, _YARN)
    rotary = rotary_config(config, head_dim, rope=rope, default_theta=150000.0)
    bias = config.boolean("attention_bias", default=True)
    windows = layer_windows(config, config.optional_int("sliding_window", 128), lambda layer: layer % 2 == 0)
    mixture = _mixture(config)
    layers = tuple(
        pre_norm_layer(
            AttentionConfig(
                num_heads=num_heads,
                num_kv_heads=num_kv_heads,
                head_dim=head_dim,
                rotary=rotary,
                qkv_bias=bias,
                output_bias=bias,
                window=window,
                has_sinks=True,
            ),
            mixture,
            rms_norm(config, default=1e-5),
        )
        for window in windows
    )
    return ModelDescription(mixtral.decoder(config, layers, rotary, 1e-5), _names(mixture.num_experts))


def _mixture(config: HFConfig) -> MixtureConfig:
    config.demand("hidden_act", "silu")
    num_experts = config.positive_int("num_local_experts", default=128)
    router = Router(config.positive_int("num_experts_per_tok", default=4), renormalise=True)
    return MixtureConfig(
        num_experts=num_experts,
        intermediate_size=config.positive_int("intermediate_size"),
        router=checked_router(config, router, num_experts),
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
        layer="model.layers.{}.",
        layers={
            **llama.ATTENTION,
            "attention.sinks": "self_attn.sinks",
            "mixture.norm": "post_attention_layernorm",
            "mixture.router": "mlp.router",
            **experts,
        },
        top=llama.TOP,
    )
