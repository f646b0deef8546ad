"""Model folders for tests: tiny, sharded, unsupported, hostile, big. No torch, made in milliseconds.

The tiny Llama loads in Transformers and in the engine; its weights are random, seeded, and scaled as trained ones are.
"""

from __future__ import annotations

import json
import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

TEXT = "The quick brown fox jumps over the lazy dog. A slip is a place where ships are built and launched. "
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
SPECIAL = ["<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]


def llama_config(**changes: Any) -> dict[str, Any]:
    """config.json of a tiny Llama; keyword arguments replace or add fields."""
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 384,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "torch_dtype": "float32",
    }
    return config | changes


def tiny_llama(folder: Path, *, seed: int = 0, shards: int = 1, licence: str = "apache-2.0", **changes: Any) -> Path:
    """A complete Llama repository: config, weights (in *shards* files), tokenizer with chat template, model card."""
    folder.mkdir(parents=True, exist_ok=True)
    config = llama_config(**changes)
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 1})
    (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\nRandom weights, made by a test.\n")
    write_tokenizer(folder)
    write_weights(folder, llama_tensors(config, seed), shards)
    return folder


def llama_tensors(config: dict[str, Any], seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """Random tensors under the names and shapes that LlamaForCausalLM has, in the dtype the config names."""
    random = np.random.default_rng(seed)
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    head_dim = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, keys = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    shapes = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        shapes |= {
            f"{prefix}.input_layernorm.weight": (hidden,),
            f"{prefix}.post_attention_layernorm.weight": (hidden,),
            f"{prefix}.self_attn.q_proj.weight": (queries, hidden),
            f"{prefix}.self_attn.k_proj.weight": (keys, hidden),
            f"{prefix}.self_attn.v_proj.weight": (keys, hidden),
            f"{prefix}.self_attn.o_proj.weight": (hidden, queries),
            f"{prefix}.mlp.gate_proj.weight": (inner, hidden),
            f"{prefix}.mlp.up_proj.weight": (inner, hidden),
            f"{prefix}.mlp.down_proj.weight": (hidden, inner),
        }
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, hidden)
    dtype = np.dtype(config["torch_dtype"])
    return {
        name: np.ones(shape, dtype) if len(shape) == 1 else (random.normal(size=shape) / shape[-1] ** 0.5).astype(dtype)
        for name, shape in shapes.items()
    }


def write_weights(folder: Path, tensors: dict[str, np.ndarray[Any, Any]], shards: int = 1) -> None:
    """Saves *tensors* as model.safetensors, or as numbered shards with their index."""
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(tensors)
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        file_name = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[shard::shards]}
        save_file(part, folder / file_name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file_name)
    total = sum(tensor.nbytes for tensor in tensors.values())
    _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def write_tokenizer(folder: Path) -> None:
    """A byte-level BPE tokenizer of 384 entries with a chat template, in Hugging Face's files."""
    (folder / "tokenizer.json").write_text(_tokenizer_json())
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|begin|>",
            "eos_token": "<|end|>",
            "chat_template": CHAT_TEMPLATE,
            "model_max_length": 512,
        },
    )


def unsupported_model(folder: Path) -> Path:
    """A repository whose architecture no engine here serves."""
    tiny_llama(folder, architectures=["RwkvForCausalLM"], model_type="rwkv")
    return folder


def custom_code_model(folder: Path, marker: Path) -> Path:
    """A repository with remote code: importing its module would create *marker*."""
    tiny_llama(
        folder,
        architectures=["SurpriseForCausalLM"],
        model_type="surprise",
        auto_map={"AutoConfig": "modeling_surprise.SurpriseConfig"},
    )
    (folder / "modeling_surprise.py").write_text(f"open({str(marker)!r}, 'w').write('executed')\n")
    return folder


def pickle_model(folder: Path) -> Path:
    """A repository with pytorch_model.bin and no safetensors."""
    tiny_llama(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return folder


def big_model(folder: Path, size: int, *, files: int = 1, seed: int = 0) -> Path:
    """A tiny Llama with *files* extra safetensors files of *size* random bytes each, for downloads that take a while.

    With one file it is called padding.safetensors; with several padding-00001.safetensors and so on.
    """
    tiny_llama(folder)
    random = np.random.default_rng(seed)
    for number in range(1, files + 1):
        name = "padding.safetensors" if files == 1 else f"padding-{number:05d}.safetensors"
        header = json.dumps({"padding": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
        header += b" " * (-len(header) % 8)
        with (folder / name).open("wb") as stream:
            stream.write(struct.pack("<Q", len(header)) + header)
            for start in range(0, size, 1 << 24):
                stream.write(random.bytes(min(1 << 24, size - start)))
    return folder


@cache
def _tokenizer_json() -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    return str(tokenizer.to_str())


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2))
