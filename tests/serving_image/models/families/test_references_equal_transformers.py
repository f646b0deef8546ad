"""References of models that are another one under other names, held to that other one in Transformers."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GlmConfig, GraniteConfig, LlamaConfig, PretrainedConfig

from tests.serving_image.models.families.case import VOCAB_SIZE
from tests.serving_image.models.families.references import chatglm, internlm2, llama, minicpm
from tests.serving_image.models.families.references.checkpoint import Config, Logits, Shapes, random_weights

Tensors = dict[str, Tensor]


class Renamed(NamedTuple):
    """A reference's configuration, and the same model's in Transformers with how its tensors are called there."""

    config: Config
    shapes: Callable[[Config], Shapes]
    logits: Logits
    same: PretrainedConfig
    tensors: Callable[[Tensors], Tensors]


_SIZES = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 48,
    "num_attention_heads": 6,
    "num_hidden_layers": 2,
    "intermediate_size": 80,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-3,
    "tie_word_embeddings": False,
}


def respelled(tensors: Tensors, *spellings: tuple[str, str]) -> Tensors:
    """With names changed: patterns and what stands in their place."""

    def other(name: str) -> str:
        for pattern, replacement in spellings:
            name = re.sub(pattern, replacement, name)
        return name

    return {other(name): tensor for name, tensor in tensors.items()}


def from_exaone(tensors: Tensors) -> Tensors:
    return respelled(
        tensors,
        (r"^transformer\.wte", "model.embed_tokens"),
        (r"^transformer\.ln_f", "model.norm"),
        (r"^transformer\.h\.", "model.layers."),
        (r"attn\.attention\.out_proj", "self_attn.o_proj"),
        (r"attn\.attention\.", "self_attn."),
        ("ln_1", "input_layernorm"),
        ("ln_2", "post_attention_layernorm"),
        ("c_fc_0", "gate_proj"),
        ("c_fc_1", "up_proj"),
        ("c_proj", "down_proj"),
    )


def from_internlm2(tensors: Tensors) -> Tensors:
    """``wqkv`` of three queries, a key and a value of eight rows each, twice."""
    found = respelled(
        tensors,
        ("tok_embeddings", "embed_tokens"),
        ("^output", "lm_head"),
        (r"attention\.wo", "self_attn.o_proj"),
        ("attention_norm", "input_layernorm"),
        ("ffn_norm", "post_attention_layernorm"),
        (r"feed_forward\.w1", "mlp.gate_proj"),
        (r"feed_forward\.w2", "mlp.down_proj"),
        (r"feed_forward\.w3", "mlp.up_proj"),
    )
    for name in [name for name in found if "wqkv" in name]:
        query, key, value = found.pop(name).unflatten(0, (2, 5, 8)).split((3, 1, 1), dim=1)
        for letter, part in zip("qkv", (query, key, value), strict=True):
            found[name.replace("attention.wqkv", f"self_attn.{letter}_proj")] = part.flatten(0, 2)
    return found


def from_chatglm(tensors: Tensors) -> Tensors:
    """``query_key_value`` of six queries, two keys and two values of twenty rows each."""
    found = respelled(
        tensors,
        (r"^transformer\.embedding\.word_embeddings", "model.embed_tokens"),
        (r"^transformer\.encoder\.final_layernorm", "model.norm"),
        (r"^transformer\.output_layer", "lm_head"),
        (r"^transformer\.encoder\.", "model."),
        (r"self_attention\.dense", "self_attn.o_proj"),
        ("dense_h_to_4h", "gate_up_proj"),
        ("dense_4h_to_h", "down_proj"),
    )
    for name in [name for name in found if "query_key_value" in name]:
        for letter, part in zip("qkv", found.pop(name).split((120, 40, 40)), strict=True):
            found[name.replace("self_attention.query_key_value", f"self_attn.{letter}_proj")] = part
    return found


CASES = {
    "aquila and xverse": Renamed(
        _SIZES | {"rope_theta": 500.0},
        llama.shapes,
        llama.logits,
        LlamaConfig(**_SIZES, rope_parameters={"rope_type": "default", "rope_theta": 500.0}),
        dict,
    ),
    "internlm": Renamed(
        _SIZES | {"bias": True, "rotary": {"base": 500, "type": "origin"}},
        llama.shapes,
        llama.logits,
        LlamaConfig(**_SIZES, attention_bias=True, rope_parameters={"rope_type": "default", "rope_theta": 500.0}),
        dict,
    ),
    "exaone": Renamed(
        _SIZES | {"num_layers": 2, "layer_norm_epsilon": 1e-3, "head_dim": 20},
        partial(llama.shapes, spelling=llama.EXAONE),
        partial(llama.logits, spelling=llama.EXAONE),
        LlamaConfig(**_SIZES, head_dim=20),
        from_exaone,
    ),
    "internlm2": Renamed(
        _SIZES | {"bias": True, "rope_theta": 500.0},
        internlm2.shapes,
        internlm2.logits,
        LlamaConfig(**_SIZES, attention_bias=True, rope_parameters={"rope_type": "default", "rope_theta": 500.0}),
        from_internlm2,
    ),
    "minicpm": Renamed(
        _SIZES | {"scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 16},
        llama.shapes,
        minicpm.logits,
        GraniteConfig(
            **_SIZES,
            embedding_multiplier=12.0,
            residual_multiplier=1.4 / 2**0.5,
            logits_scaling=3.0,
            attention_multiplier=8**-0.5,
        ),
        dict,
    ),
    "chatglm": Renamed(
        {
            "padded_vocab_size": VOCAB_SIZE,
            "hidden_size": 48,
            "ffn_hidden_size": 80,
            "num_layers": 2,
            "num_attention_heads": 6,
            "kv_channels": 20,
            "layernorm_epsilon": 1e-3,
            "rmsnorm": True,
            "multi_query_attention": True,
            "multi_query_group_num": 2,
            "add_bias_linear": False,
            "add_qkv_bias": True,
            "rope_ratio": 0.05,
        },
        chatglm.shapes,
        chatglm.logits,
        GlmConfig(
            **_SIZES,
            head_dim=20,
            pad_token_id=None,
            rope_parameters={"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
        ),
        from_chatglm,
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
@torch.inference_mode()
def test_the_same_weights_score_the_same(case: Renamed) -> None:
    weights = random_weights(case.shapes(case.config))
    model = AutoModelForCausalLM.from_config(case.same, attn_implementation="eager", dtype=torch.float32).eval()
    model.load_state_dict(case.tensors(weights))
    tokens = torch.randint(0, VOCAB_SIZE, (50,), generator=torch.Generator().manual_seed(1))
    expected = model(input_ids=tokens[None], use_cache=False).logits[0]
    torch.testing.assert_close(case.logits(weights, case.config, tokens), expected, atol=1e-3, rtol=1e-3)
