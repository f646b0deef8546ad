"""Granite: Llama with factors on the embedding, the scores, what blocks add, and the logits."""

from __future__ import annotations

from dataclasses import replace

from serving_image.models.architectures import llama
from serving_image.models.assembly import attention, decoder, gated_feed_forward, num_layers
from serving_image.models.config import EmbeddingConfig, pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import rms_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.tensor_names import From, TensorNames
from serving_image.models.transforms import scaled

ARCHITECTURES = ("GraniteForCausalLM",)


def describe(config: HFConfig) -> ModelDescription:
    """Pre-normalised rotary attention and SwiGLU."""
    norm = rms_norm(config)
    layer = pre_norm_layer(
        replace(
            attention(config, bias=config.boolean("attention_bias", default=False)),
            scale=config.number("attention_multiplier", default=1.0),
        ),
        gated_feed_forward(config, bias=config.boolean("mlp_bias", default=False)),
        norm,
    )
    whole = decoder(
        config,
        [layer] * num_layers(config),
        replace(norm, wide=True),
        embedding=EmbeddingConfig(scale=config.number("embedding_multiplier", default=1.0)),
    )
    names = names_with_factors(
        residual=config.number("residual_multiplier", default=1.0),
        logits=1 / config.number("logits_scaling", default=1.0),
    )
    return ModelDescription(whole, names)


def names_with_factors(*, residual: float, logits: float) -> TensorNames:
    """Llama's names, with a factor on what each block adds to the stream and one on the logits."""
    return llama.names(
        {
            "attention.output": From("self_attn.o_proj", scaled(residual)),
            "feed_forward.down": From("mlp.down_proj", scaled(residual)),
        },
        {"final_norm": From("model.norm", scaled(logits))},
    )
