"""Models of several families, all of about 250 million random parameters in bfloat16, with the same tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from llama_246m import CONFIG as LLAMA
from llama_246m import write_tokenizer
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MixtralConfig,
    PretrainedConfig,
    Qwen2Config,
)

VOCAB_SIZE: int = LLAMA["vocab_size"]
_SIZES: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
}
_MIXTURE: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 1024,
    "num_hidden_layers": 10,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 4096,
}


class Family(NamedTuple):
    """Its name for people, and its configuration."""

    title: str
    config: type[PretrainedConfig]
    settings: dict[str, Any]


FAMILIES = {
    "llama": Family("Llama", LlamaConfig, _SIZES),
    "qwen2": Family("Qwen2", Qwen2Config, _SIZES | {"tie_word_embeddings": False}),
    "gpt2": Family("GPT-2", GPT2Config, {"n_embd": 1024, "n_layer": 16, "n_head": 16, "n_positions": 4096}),
    "mixtral": Family("Mixtral, 2 of 8 experts", MixtralConfig, _MIXTURE),
    "gemma2": Family("Gemma 2", Gemma2Config, _SIZES | {"head_dim": 64, "sliding_window": 1024}),
}


def make_model(family: str, folder: Path) -> Path:
    """The family's model; made once."""
    if (folder / "model.safetensors").is_file():
        return folder
    title, config_class, settings = FAMILIES[family]
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder / "tokenizer.json", VOCAB_SIZE)
    torch.manual_seed(0)
    config = config_class(vocab_size=VOCAB_SIZE, bos_token_id=0, eos_token_id=1, **settings)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    print(f"{title}: {model.num_parameters() / 1e6:.0f}M parameters", flush=True)
    model.save_pretrained(folder)
    return folder
