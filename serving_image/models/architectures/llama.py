"""Llama 1, 2 and 3, and the many checkpoints that use its architecture."""

from __future__ import annotations

from typing import Any, get_args

from serving_image.models.config import DecoderConfig
from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary import RotaryConfig, RotaryScaling
from serving_image.models.weights import Source

_SCALINGS: dict[str, RotaryScaling] = {name: name for name in get_args(RotaryScaling)}


def decoder_config(config: HFConfig) -> DecoderConfig:
    """Translate ``config.json``.

    :raises StartupError: a field is missing, malformed or asks for something this family does not have.
    """
    hidden_size = config.positive_int("hidden_size")
    num_heads = config.positive_int("num_attention_heads")
    num_kv_heads = config.positive_int("num_key_value_heads", default=num_heads)
    head_dim = config.positive_int("head_dim", default=hidden_size // num_heads)
    if num_heads % num_kv_heads or head_dim % 2:
        raise config.error(
            f"{num_heads} attention heads over {num_kv_heads} key/value heads of size {head_dim} is not a layout "
            "that attention can use"
        )
    activation = config.string("hidden_act", default="silu")
    if activation not in ("silu", "swish"):
        raise config.error(f'hidden_act is "{activation}", but Llama models use "silu"')
    rotary = _rotary_config(config, head_dim)
    return DecoderConfig(
        architecture=config.architecture,
        vocab_size=config.positive_int("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=config.positive_int("intermediate_size"),
        num_layers=config.positive_int("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        norm_epsilon=config.number("rms_norm_eps", default=1e-6),
        rotary=rotary,
        attention_bias=config.boolean("attention_bias", default=False),
        mlp_bias=config.boolean("mlp_bias", default=False),
        tie_word_embeddings=config.boolean("tie_word_embeddings", default=False),
        max_position=rotary.extended_max_position,
    )


def _rotary_config(config: HFConfig, head_dim: int) -> RotaryConfig:
    """Rotary settings, in the spelling of either Transformers 4 (``rope_scaling``) or 5 (``rope_parameters``)."""
    rope = config.section("rope_scaling") or config.section("rope_parameters")
    scaling = rope.string("rope_type", default=rope.string("type", default="default"))
    if scaling not in _SCALINGS:
        raise config.error(f'rotary scaling "{scaling}" is not supported; supported: {", ".join(_SCALINGS)}')
    max_position = config.positive_int("max_position_embeddings", default=2048)
    settings: dict[str, Any] = {}
    if scaling != "default":
        settings["factor"] = rope.number("factor")
    if scaling in ("llama3", "yarn"):
        # The same precedence as Transformers': beside the rotary settings first, then within them.
        within = rope.positive_int("original_max_position_embeddings", default=max_position)
        settings["original_max_position"] = config.positive_int("original_max_position_embeddings", default=within)
    if scaling == "llama3":
        settings["low_frequency_factor"] = rope.number("low_freq_factor")
        settings["high_frequency_factor"] = rope.number("high_freq_factor")
    if scaling == "yarn":
        settings["beta_fast"] = rope.number("beta_fast", default=32.0)
        settings["beta_slow"] = rope.number("beta_slow", default=1.0)
        settings["truncate"] = rope.boolean("truncate", default=True)
        for key in ("attention_factor", "mscale", "mscale_all_dim"):
            settings[key] = rope.optional_number(key)
    return RotaryConfig(
        head_dim=head_dim,
        theta=rope.number("rope_theta", default=config.number("rope_theta", default=10000.0)),
        max_position=max_position,
        scaling=_SCALINGS[scaling],
        **settings,
    )


def sources(config: DecoderConfig) -> dict[str, tuple[Source, ...]]:
    """Where each canonical parameter comes from: checkpoint tensors stacked along their first dimension."""
    query, kv, hidden, intermediate = config.query_size, config.kv_size, config.hidden_size, config.intermediate_size
    found: dict[str, tuple[Source, ...]] = {
        "embedding.weight": (Source("model.embed_tokens.weight", config.vocab_size),),
        "final_norm.weight": (Source("model.norm.weight", hidden),),
    }
    if not config.tie_word_embeddings:
        found["lm_head.weight"] = (Source("lm_head.weight", config.vocab_size),)
    for index in range(config.num_layers):
        ours, theirs = f"layers.{index}.", f"model.layers.{index}."
        found[ours + "attention_norm.weight"] = (Source(theirs + "input_layernorm.weight", hidden),)
        found[ours + "mlp_norm.weight"] = (Source(theirs + "post_attention_layernorm.weight", hidden),)
        kinds = {"weight": (True, True), "bias": (config.attention_bias, config.mlp_bias)}
        for kind, (in_attention, in_mlp) in kinds.items():
            if in_attention:
                found[f"{ours}qkv.{kind}"] = (
                    Source(f"{theirs}self_attn.q_proj.{kind}", query),
                    Source(f"{theirs}self_attn.k_proj.{kind}", kv),
                    Source(f"{theirs}self_attn.v_proj.{kind}", kv),
                )
                found[f"{ours}attention_output.{kind}"] = (Source(f"{theirs}self_attn.o_proj.{kind}", hidden),)
            if in_mlp:
                found[f"{ours}gate_up.{kind}"] = (
                    Source(f"{theirs}mlp.gate_proj.{kind}", intermediate),
                    Source(f"{theirs}mlp.up_proj.{kind}", intermediate),
                )
                found[f"{ours}down.{kind}"] = (Source(f"{theirs}mlp.down_proj.{kind}", hidden),)
    return found


def is_redundant(config: DecoderConfig, name: str) -> bool:
    """Whether a checkpoint tensor carries nothing: rotary tables of old checkpoints, and the output layer's copy of a
    tied embedding."""
    return name.endswith("rotary_emb.inv_freq") or (config.tie_word_embeddings and name == "lm_head.weight")
