"""Arcee: Llama with a feed-forward block of squared ReLU and no gate."""

from __future__ import annotations

from serving_image.models.architectures import llama
from serving_image.models.assembly import attention, decoder, num_layers, plain_feed_forward
from serving_image.models.config import pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import rms_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.tensor_names import Origin

ARCHITECTURES = ("ArceeForCausalLM",)

UP: dict[str, Origin] = {"feed_forward.up": "mlp.up_proj"}
NAMES = llama.names(UP)


def describe(config: HFConfig) -> ModelDescription:
    """Pre-normalised rotary attention and a plain block."""
    norm = rms_norm(config, default=1e-5)
    layer = pre_norm_layer(
        attention(config, bias=config.boolean("attention_bias", default=False)),
        plain_feed_forward(config, bias=config.boolean("mlp_bias", default=False), default="relu2"),
        norm,
    )
    return ModelDescription(decoder(config, [layer] * num_layers(config), norm), NAMES)
