"""Phi-1, Phi-1.5 and Phi-2: partly rotated attention and feed-forward in parallel through one norm."""

from __future__ import annotations

from serving_image.models.assembly import plain_feed_forward
from serving_image.models.config import (
    AttentionConfig,
    DecoderConfig,
    QKNormConfig,
    parallel_layer,
)
from serving_image.models.description import ModelDescription
from serving_image.models.fields import heads, layer_norm, tied
from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary_settings import rotary_config, rotary_dim
from serving_image.models.tensor_names import Origin, TensorNames

ARCHITECTURES = ("PhiForCausalLM",)

_LAYERS: dict[str, Origin] = {
    "attention.norm": "input_layernorm",
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.query_norm": "self_attn.q_layernorm",
    "attention.key_norm": "self_attn.k_layernorm",
    "attention.output": "self_attn.dense",
    "feed_forward.up": "mlp.fc1",
    "feed_forward.down": "mlp.fc2",
}
_NAMES = TensorNames(
    layer="model.layers.{}.",
    layers=_LAYERS,
    top={"embedding": "model.embed_tokens", "final_norm": "model.final_layernorm", "lm_head": "lm_head"},
)


def describe(config: HFConfig) -> ModelDescription:
    """Biases everywhere; ``qk_layernorm`` normalises every query and key."""
    num_heads, num_kv_heads, head_dim = heads(config)
    rotary = rotary_config(config, rotary_dim(config, head_dim, default=0.5))
    norm = layer_norm(config, "layer_norm_eps")
    head_norm = QKNormConfig(kind="layer", epsilon=norm.epsilon, has_bias=True)
    attention = AttentionConfig(
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        rotary=rotary,
        qkv_bias=True,
        output_bias=True,
        qk_norm=head_norm if config.boolean("qk_layernorm", default=False) else None,
    )
    feed_forward = plain_feed_forward(config, bias=True, default="gelu_new")
    decoder = DecoderConfig(
        vocab_size=config.positive_int("vocab_size"),
        hidden_size=config.positive_int("hidden_size"),
        layers=(parallel_layer(attention, feed_forward, norm),) * config.positive_int("num_hidden_layers"),
        final_norm=norm,
        max_position=rotary.extended_max_position,
        tie_word_embeddings=tied(config, default=False),
        lm_head_bias=True,
    )
    return ModelDescription(decoder, _NAMES)
