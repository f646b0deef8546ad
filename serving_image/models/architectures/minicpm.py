"""MiniCPM 1 and 4: Llama with factors on the embedding, what blocks add, and the logits."""

from __future__ import annotations

from dataclasses import replace

from serving_image.models.architectures.granite import names_with_factors
from serving_image.models.assembly import attention, decoder, gated_feed_forward, num_layers
from serving_image.models.config import EmbeddingConfig, pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import rms_norm
from serving_image.models.hf_config import HFConfig

ARCHITECTURES = ("MiniCPMForCausalLM",)


def describe(config: HFConfig) -> ModelDescription:
    """Pre-normalised rotary attention and SwiGLU. The factors are those of maximal update parametrisation: by the
    depth, and by the width relative to that of the model they were tuned on (Hu et al. 2024, arXiv 2404.06395)."""
    config.demand("num_experts", 0)
    config.demand("sparse_config", None)
    depth = num_layers(config)
    norm = rms_norm(config)
    layer = pre_norm_layer(
        attention(config, bias=config.boolean("attention_bias", default=False)), gated_feed_forward(config), norm
    )
    whole = decoder(
        config,
        [layer] * depth,
        replace(norm, wide=True),
        tied=True,
        embedding=EmbeddingConfig(scale=config.number("scale_emb", default=1.0)),
    )
    names = names_with_factors(
        residual=config.number("scale_depth", default=1.0) / depth**0.5,
        logits=config.number("dim_model_base", default=1.0) / config.positive_int("hidden_size"),
    )
    return ModelDescription(whole, names)
