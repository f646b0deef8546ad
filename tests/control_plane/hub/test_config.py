"""config.json of any family → dimensions, compared with what Transformers makes of the same file."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from control_plane.hub.attention import AttentionLayer, Latent
from control_plane.hub.config import Quantization, read_config
from control_plane.hub.errors import InvalidRepository
from control_plane.hub.feed_forward import FeedForward

TOKENS = 21

#: A tiny configuration of each spelling. Sizes that Transformers keeps in the cache are what it is held to.
TINY: dict[str, dict[str, Any]] = {
    "llama": {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12},
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "n_inner": None},
    "gpt_bigcode": {"n_embd": 32, "n_layer": 2, "n_head": 4, "multi_query": False},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "multi_query": True},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "expansion_ratio": 2, "max_seq_len": 64},
    "xglm": {"d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4},
    "mistral": {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 1, "sliding_window": 5},
    "qwen2": {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 5},
    "gemma2": {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12}
    | {"sliding_window": 7, "num_hidden_layers": 5},
    "gemma3_text": {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 8}
    | {"sliding_window": 7, "num_hidden_layers": 7},
    "cohere2": {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 7}
    | {"num_hidden_layers": 5},
    "gpt_oss": {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    | {"sliding_window": 4, "num_hidden_layers": 3, "num_local_experts": 4, "num_experts_per_tok": 2},
    "exaone4": {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 4}
    | {"num_hidden_layers": 5, "sliding_window_pattern": 4},
    "dbrx": {
        "d_model": 32,
        "n_layers": 2,
        "n_heads": 4,
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 1e4},
    }
    | {"ffn_config": {"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2}},
    "deepseek_v3": {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "q_lora_rank": None}
    | {"kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8, "first_k_dense_replace": 1}
    | {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 16},
}


def tiny(family: str) -> dict[str, Any]:
    common = {"num_hidden_layers": 2, "intermediate_size": 48} if "hidden_size" in TINY[family] else {}
    return {"model_type": family, "vocab_size": 96, "pad_token_id": 0} | common | TINY[family]


@pytest.mark.parametrize("family", TINY)
def test_every_layer_keeps_what_transformers_keeps(family: str) -> None:
    """The reference keeps a window less one token, for the one to come."""
    stated = tiny(family)
    torch.manual_seed(0)
    fields = {name: value for name, value in stated.items() if name != "model_type"}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **fields)).eval()
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(torch.arange(TOKENS)[None], past_key_values=cache, use_cache=True)
    read = read_config(stated)
    assert len(read.attention) == len(cache.layers)
    for layer, kept in zip(read.attention, cache.layers, strict=True):
        length = TOKENS if layer.window is None else layer.window - 1
        if layer.latent:
            assert kept.keys.shape == (1, 1, length, layer.latent.rank)
            assert kept.values.shape == (1, 1, length, layer.latent.rope_dim)
        else:
            assert kept.keys.shape == kept.values.shape == (1, layer.kv_heads, length, layer.head_dim)
    assert read.hidden_size == model.get_input_embeddings().weight.shape[1]
    assert read.vocabulary == model.get_output_embeddings().weight.shape[0]
    assert read.feed_forward is not None
    inner = read.feed_forward.dense or read.feed_forward.expert_inner
    widths = {inner, 2 * inner, inner * read.feed_forward.experts}  # both halves in one, all experts in one
    assert any(widths & set(parameter.shape) for parameter in model.parameters())


@pytest.mark.parametrize(
    ("config", "layer"),
    [
        ({"model_type": "RefinedWebModel", "n_head": 71, "multi_query": True}, AttentionLayer(71, 1, 64)),
        ({"model_type": "RefinedWeb", "n_head": 71, "n_head_kv": 8}, AttentionLayer(71, 8, 64)),
        ({"model_type": "falcon", "num_attention_heads": 71}, AttentionLayer(71, 1, 64)),
        ({"model_type": "gpt_bigcode", "n_head": 71}, AttentionLayer(71, 1, 64)),
        (
            {"model_type": "chatglm", "num_attention_heads": 32, "kv_channels": 128, "multi_query_attention": True}
            | {"multi_query_group_num": 2},
            AttentionLayer(32, 2, 128),
        ),
        (
            {"model_type": "chatglm", "num_attention_heads": 32, "kv_channels": 128, "multi_query_attention": False}
            | {"multi_query_group_num": 2},
            AttentionLayer(32, 32, 128),
        ),
        ({"num_attention_heads": 71, "sliding_window": 8, "use_sliding_window": False}, AttentionLayer(71, 71, 64)),
        (
            {"model_type": "deepseek_v2", "num_attention_heads": 16, "kv_lora_rank": 512, "v_head_dim": 128}
            | {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64},
            AttentionLayer(16, 16, 284, latent=Latent(512, 128, 64, 128)),
        ),
        (  # not kept compressed: the keys made of it
            {"model_type": "minicpm3", "num_attention_heads": 40, "kv_lora_rank": 256, "v_head_dim": 64}
            | {"qk_nope_head_dim": 64, "qk_rope_head_dim": 32},
            AttentionLayer(40, 40, 96),
        ),
    ],
)
def test_attention_of_families_that_transformers_does_not_have_or_keeps_otherwise(
    config: dict[str, Any], layer: AttentionLayer
) -> None:
    assert read_config({"hidden_size": 4544, "num_hidden_layers": 2} | config).attention == (layer,) * 2


def test_layers_that_differ_from_each_other() -> None:
    def layers(**config: Any) -> list[tuple[int, int | None]]:
        read = read_config({"hidden_size": 64, "num_attention_heads": 8} | config)
        return [(layer.kv_heads, layer.window) for layer in read.attention]

    blocks = [
        {"attention": {"n_heads_in_group": 4, "no_op": False}, "ffn": {"ffn_mult": 2.625}},
        {"attention": {"n_heads_in_group": None, "no_op": True}, "ffn": {"no_op": True}},
        {"attention": {"n_heads_in_group": 8}, "ffn": {"ffn_mult": 5.25}},
    ]
    assert layers(num_hidden_layers=3, block_configs=blocks) == [(2, None), (1, None)]
    read = read_config({"hidden_size": 8192, "num_attention_heads": 64, "block_configs": blocks})
    assert read.feed_forward == FeedForward(28_672)
    assert layers(num_hidden_layers=3, num_key_value_heads_per_layer=[4, 2, 1]) == [(4, None), (2, None), (1, None)]
    types = ["sliding_attention", "full_attention", "sliding_attention"]
    assert [window for _, window in layers(num_hidden_layers=3, sliding_window=9, layer_types=types)] == [9, None, 9]
    pattern = layers(num_hidden_layers=5, sliding_window=9, sliding_window_pattern="LLG")
    assert [window for _, window in pattern] == [9, 9, None, 9, 9]
    neo = layers(num_layers=4, window_size=9, attention_types=[[["global", "local"], 2]])
    assert [window for _, window in neo] == [None, 9, None, 9]
    for nothing in (0, -1, None):
        assert layers(num_hidden_layers=1, sliding_window=nothing) == [(8, None)]
    late = layers(num_hidden_layers=3, sliding_window=9, use_sliding_window=True, max_window_layers=2)
    assert [window for _, window in late] == [None, None, 9]


@pytest.mark.parametrize(
    ("config", "feed_forward"),
    [
        ({"intermediate_size": 22, "model_type": "qwen"}, FeedForward(11)),
        ({"model_type": "gptj", "n_inner": None, "n_embd": 8}, FeedForward(32, gated=False)),
        (
            {"model_type": "qwen2_moe", "intermediate_size": 40, "moe_intermediate_size": 10, "num_experts": 6}
            | {"shared_expert_intermediate_size": 20, "num_experts_per_tok": 4},
            FeedForward(0, True, 6, 4, 10, 20),
        ),
        (
            {"model_type": "deepseek_v2", "intermediate_size": 40, "moe_intermediate_size": 10, "n_routed_experts": 6}
            | {"n_shared_experts": 2, "num_experts_per_tok": 4, "first_k_dense_replace": 1},
            FeedForward(40, True, 6, 4, 10, 20),
        ),
        (
            {"model_type": "mixtral", "intermediate_size": 40, "num_local_experts": 8, "num_experts_per_tok": 2},
            FeedForward(0, True, 8, 2, 40, 0),
        ),
        ({"intermediate_size": 40, "num_experts": 0, "num_local_experts": 0, "n_shared_experts": 0}, FeedForward(40)),
        ({"architectures": ["X"]}, None),
    ],
)
def test_feed_forward_parts(config: dict[str, Any], feed_forward: FeedForward | None) -> None:
    assert read_config(config).feed_forward == feed_forward


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"n_positions": 1024}, {"context": 1024}),
        ({"model_max_length": 4096}, {"context": 4096}),
        ({"model_type": "falcon"}, {"context": 2048}),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, {"context": 8192}),
        (
            {"max_position_embeddings": 32768}
            | {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}},
            {"context": 131072, "rope_type": "yarn"},
        ),
        ({"rope_scaling": {"type": "su"}}, {"rope_type": "longrope"}),
        ({"padded_vocab_size": 65024, "vocab_size": 65000}, {"vocabulary": 65024}),
        ({"dtype": "bfloat16"}, {"dtype": "bfloat16"}),
        ({"torch_dtype": "torch.float16"}, {"dtype": "float16"}),
        ({"quantization_config": {"quant_method": "GPTQ", "bits": 4}}, {"quantization": Quantization("gptq", 4)}),
        (
            {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": {"max_position_embeddings": 34}},
            {"context": 34, "architectures": ("Gemma3ForConditionalGeneration",)},
        ),
        ({"auto_map": {}}, {"custom_code": True, "attention": (), "feed_forward": None, "context": None}),
    ],
)
def test_the_rest_of_a_config(config: dict[str, Any], expected: dict[str, Any]) -> None:
    read = read_config(config)
    assert {name: getattr(read, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_hidden_layers", 10**6),
        ("hidden_size", "many"),
        ("hidden_size", {"size": 1}),
        ("num_attention_heads", 1.5),
        ("num_key_value_heads", [4, -8]),
        ("use_sliding_window", "yes"),
        ("n_shared_experts", -1),
        ("model_type", 7),
        ("quantization_config", "gptq"),
    ],
)
def test_nonsense_is_refused_by_name(name: str, value: Any) -> None:
    whole = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    experts = {"num_experts": 2, "num_experts_per_tok": 1}
    with pytest.raises(InvalidRepository, match=name):
        read_config(whole | experts | {name: value})
