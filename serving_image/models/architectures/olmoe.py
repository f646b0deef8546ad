"""OLMoE: norms over all queries and all keys of a token, and a mixture of experts in every layer."""

from __future__ import annotations

from dataclasses import replace

from kernels.moe import Router
from serving_image.models.architectures import llama, qwen2_moe, qwen3
from serving_image.models.assembly import attention, decoder, num_layers
from serving_image.models.config import QKNormConfig, pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import rms_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.mixture_settings import mixture_config
from serving_image.models.tensor_names import TensorNames

ARCHITECTURES = ("OlmoeForCausalLM",)

NAMES = TensorNames(
    layer=llama.NAMES.layer,
    layers={**llama.ATTENTION, **qwen3.HEAD_NORMS, **qwen2_moe.MIXTURE},
    top=llama.TOP,
)


def describe(config: HFConfig) -> ModelDescription:
    """Queries and keys are normalised, then clipped where the configuration asks for it."""
    norm = rms_norm(config, default=1e-5)
    clip = config.optional_number("clip_qkv")
    head_norms = QKNormConfig(
        kind="rms", epsilon=norm.epsilon, extent="projection", per_head=True, before_clip=clip is not None
    )
    clipped = replace(
        attention(config, bias=config.boolean("attention_bias", default=False)), qk_norm=head_norms, clip=clip
    )
    router = Router(
        config.positive_int("num_experts_per_tok", default=8),
        renormalise=config.boolean("norm_topk_prob", default=False),
    )
    mixture = mixture_config(config, router, config.positive_int("num_experts", default=64))
    layers = [pre_norm_layer(clipped, mixture, norm)] * num_layers(config)
    return ModelDescription(decoder(config, layers, norm), NAMES)
