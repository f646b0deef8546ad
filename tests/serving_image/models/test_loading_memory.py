"""A model is loaded within its own size and that of the largest tensor."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

_ALLOWANCE = 48 << 20
"""For what does not grow with the model: holes that the allocator leaves, of up to 32 MB, and what loading imports."""

Tensors = dict[str, Tensor]
HIDDEN = 1024


class _Model(NamedTuple):
    """What a folder holds."""

    config: dict[str, Any]
    tensors: Tensors

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def largest(self) -> int:
        return max(tensor.nbytes for tensor in self.tensors.values())


def _matrix(rows: int, columns: int = HIDDEN) -> Tensor:
    return torch.full((rows, columns), 0.01, dtype=torch.bfloat16)


def _common(architecture: str, layers: int, vocab: int, **fields: int) -> _Model:
    """Everything but the feed-forward blocks."""
    tensors = {
        "model.embed_tokens.weight": _matrix(vocab),
        "lm_head.weight": _matrix(vocab),
        "model.norm.weight": torch.ones(HIDDEN, dtype=torch.bfloat16),
    }
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for name, rows in (("q_proj", HIDDEN), ("k_proj", 256), ("v_proj", 256), ("o_proj", HIDDEN)):
            tensors[f"{prefix}self_attn.{name}.weight"] = _matrix(rows)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}{name}.weight"] = torch.ones(HIDDEN, dtype=torch.bfloat16)
    config = {
        "architectures": [architecture],
        "hidden_size": HIDDEN,
        "num_hidden_layers": layers,
        "vocab_size": vocab,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "max_position_embeddings": 512,
    }
    return _Model(config | fields, tensors)


def llama(layers: int, vocab: int, inner: int) -> _Model:
    """Dense."""
    model = _common("LlamaForCausalLM", layers, vocab, intermediate_size=inner)
    for layer in range(layers):
        for name in ("gate_proj", "up_proj"):
            model.tensors[f"model.layers.{layer}.mlp.{name}.weight"] = _matrix(inner)
        model.tensors[f"model.layers.{layer}.mlp.down_proj.weight"] = _matrix(HIDDEN, inner)
    return model


def mixtral(layers: int, vocab: int, inner: int) -> _Model:
    """With eight experts."""
    model = _common("MixtralForCausalLM", layers, vocab, intermediate_size=inner, num_local_experts=8)
    for layer in range(layers):
        prefix = f"model.layers.{layer}.block_sparse_moe."
        model.tensors[prefix + "gate.weight"] = _matrix(8)
        for expert in range(8):
            model.tensors[f"{prefix}experts.{expert}.w1.weight"] = _matrix(inner)
            model.tensors[f"{prefix}experts.{expert}.w2.weight"] = _matrix(HIDDEN, inner)
            model.tensors[f"{prefix}experts.{expert}.w3.weight"] = _matrix(inner)
    return model


def _save_safetensors(model: _Model, folder: Path) -> None:
    save_file(model.tensors, folder / "model.safetensors")


def _save_torch(model: _Model, folder: Path) -> None:
    torch.save(model.tensors, folder / "pytorch_model.bin")


def _write(model: _Model, folder: Path, save: Callable[[_Model, Path], None]) -> Path:
    folder.mkdir()
    save(model, folder)
    (folder / "config.json").write_text(json.dumps(model.config))
    return folder


def test_memory_peaks_at_the_model_and_the_largest_tensor(tmp_path: Path) -> None:
    models = {
        "dense": (llama(5, 8192, 4096), _save_safetensors),
        "experts": (mixtral(2, 2048, 2048), _save_torch),
    }
    folders = [_write(model, tmp_path / name, save) for name, (model, save) in models.items()]
    loaded = subprocess.run(
        [sys.executable, "-m", "tests.serving_image.models.loading_memory", *map(str, folders)],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    measured = [tuple(map(int, line.split())) for line in loaded.stdout.splitlines()]
    for (grown, weight_bytes), (model, _) in zip(measured, models.values(), strict=True):
        assert model.nbytes <= weight_bytes < model.nbytes + _ALLOWANCE
        assert weight_bytes / 2 < grown <= weight_bytes + model.largest + _ALLOWANCE
