"""Qwen3-MoE: head norms of queries and keys, small experts and none that is shared."""

from __future__ import annotations

from dataclasses import replace

from serving_image.models.architectures import llama, qwen2_moe, qwen3
from serving_image.models.assembly import attention, decoder
from serving_image.models.config import QKNormConfig, pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import rms_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.tensor_names import TensorNames

ARCHITECTURES = ("Qwen3MoeForCausalLM",)

NAMES = TensorNames(
    layer=llama.NAMES.layer,
    layers={**llama.ATTENTION, **qwen3.HEAD_NORMS, **llama.FEED_FORWARD, **qwen2_moe.MIXTURE},
    top=llama.TOP,
)


def describe(config: HFConfig) -> ModelDescription:
    """Layers are dense or mixtures, in turns; all of them may have a window."""
    norm = rms_norm(config)
    use_window = config.boolean("use_sliding_window", default=False)
    normed = replace(
        attention(config, bias=config.boolean("attention_bias", default=False)),
        qk_norm=QKNormConfig(kind="rms", epsilon=norm.epsilon),
        window=config.optional_int("sliding_window", 4096) if use_window else None,
    )
    mixture = qwen2_moe.experts(config, default_experts=128, default_top_k=8)
    layers = [pre_norm_layer(normed, part, norm) for part in qwen2_moe.feed_forwards(config, mixture)]
    return ModelDescription(decoder(config, layers, norm), NAMES)
