"""GLM (as Transformers stores it): half of each head rotated, in neighbouring pairs; gate and up in one."""

from __future__ import annotations

from serving_image.models.architectures import llama
from serving_image.models.assembly import attention, decoder, gated_feed_forward, num_layers
from serving_image.models.config import AttentionConfig, pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import heads, rms_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary_settings import rotary_config, rotary_dim
from serving_image.models.tensor_names import Origin

ARCHITECTURES = ("GlmForCausalLM",)

EPSILON = 1.5625e-7


def describe(config: HFConfig) -> ModelDescription:
    """Pre-normalised rotary attention and SwiGLU."""
    norm = rms_norm(config, default=EPSILON)
    layers = [pre_norm_layer(half_rotated(config), gated_feed_forward(config), norm)] * num_layers(config)
    names = llama.names(layer_names(config))
    return ModelDescription(decoder(config, layers, norm), names)


def half_rotated(config: HFConfig) -> AttentionConfig:
    """Attention of which ``partial_rotary_factor`` of each head is rotated, half where it is absent."""
    rotary = rotary_config(config, _rotary_dim(config))
    bias = config.boolean("attention_bias", default=True)
    return attention(config, rotary=rotary, default_head_dim=128, bias=bias, output_bias=False)


def layer_names(config: HFConfig) -> dict[str, Origin]:
    """Where a layer's names are not Llama's."""
    return {
        **llama.interleaved(heads(config, 128).head_dim, _rotary_dim(config)),
        "feed_forward.gate_up": "mlp.gate_up_proj",
    }


def _rotary_dim(config: HFConfig) -> int:
    return rotary_dim(config, heads(config, 128).head_dim, default=0.5)
