"""EXAONE 3 and 3.5: Llama with fields and names like GPT-2's."""

from __future__ import annotations

from serving_image.models.assembly import attention, decoder, gated_feed_forward, num_layers
from serving_image.models.config import pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import rms_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.tensor_names import TensorNames

ARCHITECTURES = ("ExaoneForCausalLM",)

NAMES = TensorNames(
    layer="transformer.h.{}.",
    layers={
        "attention.norm": "ln_1",
        "attention.qkv": tuple(f"attn.attention.{part}_proj" for part in "qkv"),
        "attention.output": "attn.attention.out_proj",
        "feed_forward.norm": "ln_2",
        "feed_forward.gate_up": ("mlp.c_fc_0", "mlp.c_fc_1"),
        "feed_forward.down": "mlp.c_proj",
    },
    top={"embedding": "transformer.wte", "final_norm": "transformer.ln_f", "lm_head": "lm_head"},
    redundant=r"\.rotary\.inv_freq$",
)


def describe(config: HFConfig) -> ModelDescription:
    """Pre-normalised rotary attention and SwiGLU."""
    config = config.respelled({"num_layers": "num_hidden_layers"})
    norm = rms_norm(config, "layer_norm_epsilon", default=1e-5)
    feed_forward = gated_feed_forward(config, activation="activation_function")
    layers = [pre_norm_layer(attention(config), feed_forward, norm)] * num_layers(config)
    return ModelDescription(decoder(config, layers, norm, tied=True), NAMES)
