"""InternLM 3: Llama whose biases of queries, keys and values have a flag of their own."""

from __future__ import annotations

from serving_image.models.architectures.llama import NAMES
from serving_image.models.assembly import attention, decoder, gated_feed_forward, num_layers
from serving_image.models.config import pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import rms_norm
from serving_image.models.hf_config import HFConfig

ARCHITECTURES = ("InternLM3ForCausalLM",)


def describe(config: HFConfig) -> ModelDescription:
    """Pre-normalised rotary attention and SwiGLU."""
    config = config.respelled({"attention_bias": "qkv_bias", "mlp_bias": "bias"})
    bias = config.boolean("bias", default=False)
    norm = rms_norm(config, default=1e-5)
    layer = pre_norm_layer(
        attention(
            config,
            default_head_dim=128,
            bias=config.boolean("qkv_bias", default=False),
            output_bias=bias,
        ),
        gated_feed_forward(config, bias=bias),
        norm,
    )
    return ModelDescription(decoder(config, [layer] * num_layers(config), norm), NAMES)
