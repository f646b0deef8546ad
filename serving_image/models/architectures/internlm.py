"""InternLM 1: Llama with biases on all four products of the attention."""

from __future__ import annotations

from serving_image.models.architectures.llama import NAMES
from serving_image.models.assembly import attention, decoder, gated_feed_forward, num_layers
from serving_image.models.config import pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import heads, rms_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary import RotaryConfig
from serving_image.models.rotary_settings import rotary_config

ARCHITECTURES = ("InternLMForCausalLM",)


def describe(config: HFConfig) -> ModelDescription:
    """Pre-normalised rotary attention and SwiGLU."""
    norm = rms_norm(config)
    layer = pre_norm_layer(
        attention(config, rotary=_rotary(config), bias=config.boolean("bias", default=True)),
        gated_feed_forward(config),
        norm,
    )
    return ModelDescription(decoder(config, [layer] * num_layers(config), norm), NAMES)


def _rotary(config: HFConfig) -> RotaryConfig:
    """``rotary`` has a type and a base of its own."""
    rotary = config.section("rotary")
    scaling = rotary.choice("type", {"origin": "default", "dynamic": "dynamic"}, "dynamic")
    rope = HFConfig(config.path, {"rope_type": scaling, "factor": rotary.number("scaling_factor", default=1.0)})
    return rotary_config(config, heads(config).head_dim, rope=rope, theta=rotary.number("base", default=10000.0))
