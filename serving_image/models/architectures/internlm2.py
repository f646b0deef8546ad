"""InternLM 2: Llama with queries, keys and values fused by group, and names of its own."""

from __future__ import annotations

from serving_image.models.assembly import attention, decoder, gated_feed_forward, num_layers
from serving_image.models.config import AttentionConfig, pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import rms_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.tensor_names import From, TensorNames
from serving_image.models.transforms import grouped_qkv

ARCHITECTURES = ("InternLM2ForCausalLM",)


def describe(config: HFConfig) -> ModelDescription:
    """Pre-normalised rotary attention and SwiGLU."""
    norm = rms_norm(config)
    rotated = attention(config, bias=config.boolean("bias", default=True))
    layers = [pre_norm_layer(rotated, gated_feed_forward(config), norm)] * num_layers(config)
    return ModelDescription(decoder(config, layers, norm), _names(rotated))


def _names(attention: AttentionConfig) -> TensorNames:
    grouped = grouped_qkv(attention.num_heads, attention.num_kv_heads, attention.head_dim)
    return TensorNames(
        layer="model.layers.{}.",
        layers={
            "attention.norm": "attention_norm",
            "attention.qkv": From("attention.wqkv", grouped),
            "attention.output": "attention.wo",
            "feed_forward.norm": "ffn_norm",
            "feed_forward.gate_up": ("feed_forward.w1", "feed_forward.w3"),
            "feed_forward.down": "feed_forward.w2",
        },
        top={"embedding": "model.tok_embeddings", "final_norm": "model.norm", "lm_head": "output"},
    )
