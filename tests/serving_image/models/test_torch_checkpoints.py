"""Checkpoints that ``torch.save`` wrote are taken if they are tensors by name; nothing in them is run."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from serving_image.errors import StartupError
from tests.serving_image.checkpoints import write_checkpoint
from tests.serving_image.generation import boot_engine, generate, start

PROMPT = [3, 1, 4, 1, 5]


def _without_safetensors(folder: Path, **changes: Any) -> dict[str, Tensor]:
    """Write a checkpoint, take its weights away and return them."""
    write_checkpoint(folder, **changes)
    file = folder / "model.safetensors"
    tensors: dict[str, Tensor] = load_file(file)
    file.unlink()
    return tensors


def _save(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    torch.save(tensors, folder / "pytorch_model.bin")


def _save_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    names = sorted(tensors)
    shards = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, part in shards.items():
        torch.save({name: tensors[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def _save_before_zip(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """In the format of before PyTorch 1.6."""
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def _save_parameters(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """As a training script may have left them: they want gradients."""
    _save(folder, {name: torch.nn.Parameter(tensor) for name, tensor in tensors.items()})


@pytest.mark.parametrize("save", [_save, _save_shards, _save_before_zip, _save_parameters])
def test_weights_are_those_of_safetensors(tmp_path: Path, save: Callable[[Path, Mapping[str, Tensor]], None]) -> None:
    expected = generate(start(write_checkpoint(tmp_path / "safetensors")), PROMPT, 8)
    save(tmp_path / "torch", _without_safetensors(tmp_path / "torch"))
    assert generate(start(tmp_path / "torch"), PROMPT, 8) == expected


def test_a_tied_output_layer_that_shares_memory_is_taken(tmp_path: Path) -> None:
    expected = generate(start(write_checkpoint(tmp_path / "safetensors", tie_word_embeddings=True)), PROMPT, 8)
    tensors = _without_safetensors(tmp_path / "torch", tie_word_embeddings=True)
    _save(tmp_path / "torch", tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]})
    assert generate(start(tmp_path / "torch"), PROMPT, 8) == expected


def test_safetensors_go_before(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    expected = generate(start(folder), PROMPT, 8)
    (folder / "pytorch_model.bin").write_bytes(b"not even a file of weights")
    assert generate(start(folder), PROMPT, 8) == expected


class _Intruder:
    """Leaves a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return exec, (f"open({str(self._mark)!r}, 'w').close()",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    tensors: dict[str, Any] = _without_safetensors(tmp_path)
    mark, file = tmp_path / "mark", tmp_path / "pytorch_model.bin"
    tensors["model.norm.weight"] = _Intruder(mark)
    torch.save(tensors, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        StartupError, match=r"as plain tensors: it asks for \S*exec\. .*code in weight files is never run"
    ):
        boot_engine(tmp_path)
    assert not mark.exists()
    # It would have been: the file is not harmless for another reason.
    torch.load(file, weights_only=False)
    assert mark.exists()


def test_a_bare_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    _without_safetensors(tmp_path)
    mark = tmp_path / "mark"
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"model.norm.weight": _Intruder(mark)}, protocol=2))
    with pytest.raises(StartupError, match=r"pytorch_model\.bin cannot be loaded as plain tensors"):
        boot_engine(tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "content", [[torch.ones(2)], {"state_dict": {"model.norm.weight": torch.ones(64)}}, {1: torch.ones(2)}]
)
def test_what_is_not_tensors_by_name_is_refused(tmp_path: Path, content: object) -> None:
    _without_safetensors(tmp_path)
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(StartupError, match=r"pytorch_model\.bin does not hold tensors by name"):
        boot_engine(tmp_path)


@pytest.mark.parametrize("kept", [0, 1, 100, -200])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_file_is_named(tmp_path: Path, kept: int, zipped: bool) -> None:
    torch.save(_without_safetensors(tmp_path), tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    file = tmp_path / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(StartupError, match=r"pytorch_model\.bin cannot be loaded as plain tensors: it is damaged"):
        boot_engine(tmp_path)


def test_a_shard_that_was_not_downloaded_is_named(tmp_path: Path) -> None:
    _save_shards(tmp_path, _without_safetensors(tmp_path))
    (tmp_path / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(StartupError, match=r"lacks pytorch_model-00002-of-00002\.bin"):
        boot_engine(tmp_path)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    tensors = _without_safetensors(tmp_path)
    del tensors["model.norm.weight"]
    _save(tmp_path, tensors)
    with pytest.raises(StartupError, match=r"lacks model\.norm\.weight"):
        boot_engine(tmp_path)


def test_a_mask_that_is_larger_than_any_weight_does_not_say_what_to_compute_in(tmp_path: Path) -> None:
    """Old checkpoints keep causal masks, as integers."""
    tensors = _without_safetensors(tmp_path)
    mask = torch.ones(1, 1, 300, 300, dtype=torch.uint8)
    _save(tmp_path, {name: tensor.bfloat16() for name, tensor in tensors.items()} | {"model.layers.0.attn.bias": mask})
    booted = boot_engine(tmp_path, dtype="auto")
    assert len(generate(booted.core, PROMPT, 4)) == 4
