"""DBRX: clipped projections, layer norms without biases, all experts of a layer in three tensors."""

from __future__ import annotations

from dataclasses import replace

from kernels.moe import GatedActivation, Router
from serving_image.models.assembly import decoder, num_layers
from serving_image.models.config import AttentionConfig, MixtureConfig, NormConfig, pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import checked_heads, gated_activation
from serving_image.models.hf_config import HFConfig
from serving_image.models.mixture_settings import mixture_config
from serving_image.models.rotary_settings import rotary_config
from serving_image.models.tensor_names import From, Origin, TensorNames
from serving_image.models.transforms import TRANSPOSE, rows

ARCHITECTURES = ("DbrxForCausalLM",)

_SPELLINGS = {"d_model": "hidden_size", "n_layers": "num_hidden_layers", "max_seq_len": "max_position_embeddings"}


def describe(config: HFConfig) -> ModelDescription:
    """The sections ``attn_config`` and ``ffn_config`` say what attention and the mixture are."""
    config.demand("tie_word_embeddings", False)
    config = config.respelled(_SPELLINGS)
    norm = NormConfig(kind="layer", epsilon=1e-5)
    mixture = _mixture(config.section("ffn_config"))
    layers = [pre_norm_layer(_attention(config), mixture, norm)] * num_layers(config)
    return ModelDescription(decoder(config, layers, norm), _names(mixture))


def _attention(config: HFConfig) -> AttentionConfig:
    section, num_heads = config.section("attn_config"), config.positive_int("n_heads")
    share = config.positive_int("hidden_size") // num_heads
    kv_heads = section.positive_int("kv_n_heads", default=1)
    num_heads, num_kv_heads, head_dim = checked_heads(config, num_heads, kv_heads, share)
    return AttentionConfig(
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        rotary=rotary_config(config, head_dim, theta=section.optional_number("rope_theta")),
        clip=section.optional_number("clip_qkv"),
    )


def _mixture(section: HFConfig) -> MixtureConfig:
    power = section.optional_number("moe_normalize_expert_weights", 1.0)
    if power not in (None, 1.0):
        raise section.error(f"moe_normalize_expert_weights is {power}; only 1 and null are supported")
    router = Router(section.positive_int("moe_top_k", default=1), renormalise=power is not None)
    return replace(
        mixture_config(section, router, section.positive_int("moe_num_experts", default=4), "ffn_hidden_size"),
        activation=GatedActivation(gated_activation(section.section("ffn_act_fn"), "name")),
    )


def _names(mixture: MixtureConfig) -> TensorNames:
    """An expert is some rows of each tensor; the last has its inputs as rows."""
    experts: dict[str, Origin] = {}
    size, stored = mixture.intermediate_size, "ffn.experts.mlp."
    for index in range(mixture.num_experts):
        expert, own = f"mixture.experts.{index}", rows(index * size, (index + 1) * size, mixture.num_experts * size)
        experts[f"{expert}.gate_up.weight"] = (From(stored + "w1", own), From(stored + "v1", own))
        experts[f"{expert}.down.weight"] = From(stored + "w2", own.then(TRANSPOSE))
    return TensorNames(
        layer="transformer.blocks.{}.",
        layers={
            "attention.norm": "norm_attn_norm.norm_1",
            "attention.qkv": "norm_attn_norm.attn.Wqkv",
            "attention.output": "norm_attn_norm.attn.out_proj",
            "mixture.norm": "norm_attn_norm.norm_2",
            "mixture.router": "ffn.router.layer",
            **experts,
        },
        top={"embedding": "transformer.wte", "final_norm": "transformer.norm_f", "lm_head": "lm_head"},
    )
