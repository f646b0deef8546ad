"""GLM-4 of April 2025 (0414): GLM with norms after each block too."""

from __future__ import annotations

from serving_image.models.architectures import glm, llama
from serving_image.models.assembly import decoder, gated_feed_forward, num_layers, sandwich_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import rms_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.tensor_names import Origin

ARCHITECTURES = ("Glm4ForCausalLM",)

_OUTPUT_NORMS: dict[str, Origin] = {
    "attention.output_norm": "post_self_attn_layernorm",
    "feed_forward.output_norm": "post_mlp_layernorm",
}


def describe(config: HFConfig) -> ModelDescription:
    """Rotary attention and SwiGLU, normalised before and after."""
    norm = rms_norm(config, default=glm.EPSILON)
    layers = [sandwich_layer(glm.half_rotated(config), gated_feed_forward(config), norm)] * num_layers(config)
    names = llama.names({**glm.layer_names(config), **_OUTPUT_NORMS})
    return ModelDescription(decoder(config, layers, norm), names)
