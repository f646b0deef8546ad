"""References of older families, held to families of Transformers that are the same by another name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MptConfig,
    PretrainedConfig,
    Qwen2Config,
    StableLmConfig,
)

from tests.serving_image.models.families.case import VOCAB_SIZE, perturb, transformers_reference
from tests.serving_image.models.families.references import baichuan, decilm, jais, mpt, orion, qwen

_SIZES = {"num_hidden_layers": 2, "vocab_size": VOCAB_SIZE, "initializer_range": 0.2, "tie_word_embeddings": False}


def _agree(
    theirs: PretrainedConfig,
    rename: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    shapes: dict[str, tuple[int, ...]],
    logits: Callable[[dict[str, Tensor], Tensor], Tensor],
) -> None:
    """The reference with a model's weights, which ``rename`` puts under its names, scores as the model does."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(theirs, attn_implementation="eager", dtype=torch.float32).eval()
    perturb(model)
    weights = rename({name: tensor.detach() for name, tensor in model.state_dict().items()})
    assert {name: tuple(weights[name].shape) for name in shapes} == shapes
    tokens = torch.randint(0, VOCAB_SIZE, (60,))
    expected = transformers_reference(model)(tokens.tolist())
    torch.testing.assert_close(logits(weights, tokens), expected, atol=1e-3 * float(expected.abs().max()), rtol=1e-3)


def _renamed(names: dict[str, str]) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """By patterns, the first that fits."""

    def rename(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        for pattern, name in names.items():
            weights = {re.sub(pattern, name, old): tensor for old, tensor in weights.items()}
        return weights

    return rename


def _packed(weights: dict[str, Tensor], parts: tuple[str, ...], whole: str) -> dict[str, Tensor]:
    """With every layer's projections ``parts`` as the rows of one, ``whole``."""
    packed = {
        name.replace(parts[0], whole): torch.cat([weights[name.replace(parts[0], part)] for part in parts])
        for name in weights
        if parts[0] in name
    }
    return {name: tensor for name, tensor in weights.items() if not any(part in name for part in parts)} | packed


def test_baichuan_7b_is_llama_with_packed_projections() -> None:
    sizes = {"hidden_size": 48, "intermediate_size": 70, "num_attention_heads": 3, "rms_norm_eps": 1e-3}
    config = _SIZES | sizes
    _agree(
        LlamaConfig(**config),
        lambda weights: _packed(weights, ("q_proj", "k_proj", "v_proj"), "W_pack"),
        baichuan.shapes(config),
        lambda weights, tokens: baichuan.logits(weights, config, tokens, is_rotary=True, normalises_head=False),
    )


def test_qwen_1_is_qwen_2_under_other_names() -> None:
    sizes = {"hidden_size": 48, "num_attention_heads": 3}
    theirs = Qwen2Config(
        **_SIZES,
        **sizes,
        num_key_value_heads=3,
        intermediate_size=70,
        rms_norm_eps=1e-3,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
    )
    config: dict[str, Any] = {
        **_SIZES,
        **sizes,
        "kv_channels": 16,
        "intermediate_size": 140,
        "layer_norm_epsilon": 1e-3,
        "rotary_pct": 1.0,
        "rotary_emb_base": 500.0,
        "no_bias": True,
    }
    names = {
        r"^model\.layers\.": "transformer.h.",
        r"^model\.embed_tokens\.": "transformer.wte.",
        r"^model\.norm\.": "transformer.ln_f.",
        r"\.input_layernorm\.": ".ln_1.",
        r"\.post_attention_layernorm\.": ".ln_2.",
        r"\.self_attn\.o_proj\.": ".attn.c_proj.",
        r"\.self_attn\.": ".attn.",
        r"\.gate_proj\.": ".w2.",
        r"\.up_proj\.": ".w1.",
        r"\.down_proj\.": ".c_proj.",
    }
    _agree(
        theirs,
        lambda weights: _packed(_renamed(names)(weights), ("q_proj", "k_proj", "v_proj"), "c_attn"),
        qwen.shapes(config),
        lambda weights, tokens: qwen.logits(weights, config, tokens),
    )


def test_orion_is_stablelm_that_rotates_all_of_a_head() -> None:
    sizes = {"hidden_size": 48, "intermediate_size": 70, "num_attention_heads": 6, "num_key_value_heads": 2}
    theirs = StableLmConfig(
        **_SIZES,
        **sizes,
        layer_norm_eps=1e-3,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 1.0},
    )
    config = _SIZES | sizes | {"rms_norm_eps": 1e-3, "rope_theta": 500.0}
    _agree(theirs, dict, orion.shapes(config), lambda weights, tokens: orion.logits(weights, config, tokens))


def test_decilm_with_equal_layers_is_llama() -> None:
    sizes = {"hidden_size": 48, "intermediate_size": 70, "num_attention_heads": 6, "rms_norm_eps": 1e-3}
    theirs = LlamaConfig(
        **_SIZES,
        **sizes,
        num_key_value_heads=2,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
    )
    config = _SIZES | sizes | {"num_key_value_heads_per_layer": [2, 2], "rope_theta": 500.0}
    _agree(theirs, dict, decilm.shapes(config), lambda weights, tokens: decilm.logits(weights, config, tokens))


def test_jais_without_its_own_is_gpt_2() -> None:
    sizes = {
        "n_embd": 36,
        "n_head": 3,
        "n_inner": 50,
        "n_layer": 2,
        "n_positions": 60,
        "vocab_size": VOCAB_SIZE,
        "layer_norm_epsilon": 1e-3,
        "activation_function": "gelu_new",
    }
    config = sizes | {"position_embedding_type": "learned"}
    _agree(
        GPT2Config(**sizes, initializer_range=0.2),
        dict,
        jais.shapes(config),
        lambda weights, tokens: jais.logits(weights, config, tokens),
    )


def test_mpt_without_what_transformers_leaves_out() -> None:
    sizes = {"d_model": 48, "n_heads": 6, "n_layers": 2, "vocab_size": VOCAB_SIZE, "max_seq_len": 60}
    settings = {"clip_qkv": 0.7, "softmax_scale": 0.5}
    config = sizes | {
        "expansion_ratio": 4,
        "no_bias": True,
        "logit_scale": None,
        "attn_config": settings
        | {"attn_type": "multihead_attention", "qk_ln": False, "alibi": True, "alibi_bias_max": 8},
    }
    _agree(
        MptConfig(**sizes, attn_config=settings, initializer_range=0.2),
        dict,
        mpt.shapes(config),
        lambda weights, tokens: mpt.logits(weights, config, tokens),
    )
