"""The loader takes exactly the tensors that the configuration calls for, or says which are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from serving_image.errors import StartupError
from tests.serving_image.checkpoints import write_checkpoint
from tests.serving_image.generation import boot_engine, generate, start


def _rewrite(folder: Path, **changes: torch.Tensor | None) -> None:
    """Change tensors of a single-file checkpoint; None removes one. ``/`` stands for a dot in the names."""
    path = folder / "model.safetensors"
    tensors: dict[str, torch.Tensor] = load_file(path)
    for name, tensor in changes.items():
        key = name.replace("/", ".")
        if tensor is None:
            del tensors[key]
        else:
            tensors[key] = tensor
    save_file(tensors, path)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    _rewrite(folder, **{"model/layers/1/self_attn/k_proj/weight": None, "lm_head/weight": None})
    with pytest.raises(StartupError, match=r"lacks lm_head.weight, model.layers.1.self_attn.k_proj.weight"):
        boot_engine(folder)


def test_an_unexpected_tensor_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    _rewrite(folder, **{"model/layers/0/self_attn/q_norm/weight": torch.ones(16)})
    with pytest.raises(StartupError, match=r"unexpected model.layers.0.self_attn.q_norm.weight"):
        boot_engine(folder)


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    _rewrite(folder, **{"model/norm/weight": torch.ones(63)})
    with pytest.raises(StartupError, match=r"wrong shape for model.norm.weight \[63\] instead of \[64\]"):
        boot_engine(folder)


def test_integers_are_not_taken_for_weights(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    _rewrite(folder, **{"model/norm/weight": torch.ones(64, dtype=torch.int8)})
    with pytest.raises(StartupError, match=r"no floating-point numbers in model.norm.weight"):
        boot_engine(folder)


def test_many_missing_tensors_are_summarised(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(StartupError, match=r"and 4 more\. Its files do not belong to its config\.json"):
        boot_engine(folder)


def test_tensors_that_carry_nothing_are_ignored(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, tie_word_embeddings=True)
    before = generate(start(folder), [1, 2, 3], 5)
    extra = {"lm_head/weight": torch.zeros(256, 64), "model/layers/0/self_attn/rotary_emb/inv_freq": torch.zeros(8)}
    _rewrite(folder, **extra)
    assert generate(start(folder), [1, 2, 3], 5) == before


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StartupError, match=r"model.safetensors is damaged"):
        boot_engine(folder)


def test_a_shard_that_was_not_downloaded_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, shard_size="60KB")
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(StartupError, match=shard.name):
        boot_engine(folder)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": {"a": 3}}', '{"weight_map": {"a": "../x"}}'])
def test_a_bad_index_is_refused(tmp_path: Path, content: str) -> None:
    folder = write_checkpoint(tmp_path, shard_size="60KB")
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(StartupError, match=r"index\.json"):
        boot_engine(folder)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(StartupError, match=r"pytorch_model\.bin cannot be loaded as plain tensors"):
        boot_engine(folder)
    with pytest.raises(StartupError, match=r"has no weights: no \*.safetensors\."):
        boot_engine(folder, load_format="safetensors")


def test_dummy_weights_need_no_files_and_repeat_with_the_seed(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    (folder / "model.safetensors").unlink()
    first, again = (generate(start(folder, load_format="dummy", seed=7), [1, 2, 3], 8) for _ in range(2))
    assert first == again
    assert generate(start(folder, load_format="dummy", seed=8), [1, 2, 3], 8) != first


def test_a_checkpoint_survives_its_files_once_loaded(tmp_path: Path) -> None:
    """Nothing may still point into the mapped files: they could be replaced under a running server."""
    folder = write_checkpoint(tmp_path)
    core = start(folder)
    before = generate(core, [1, 2, 3], 5)
    path = folder / "model.safetensors"
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)
    assert generate(core, [1, 2, 3], 5) == before
