"""Which files are fetched, and which names and checksums are refused."""

from __future__ import annotations

import pytest

from control_plane.downloads.selection import NothingToServe, UnsafeRepository, select_files
from control_plane.hub.source import RepositoryFile

SHA256, SHA1 = "a" * 64, "b" * 40


def listed(*paths: str) -> list[RepositoryFile]:
    return [
        RepositoryFile(path, 10, SHA256, SHA256) if path.endswith("safetensors") else RepositoryFile(path, 10, SHA1)
        for path in paths
    ]


def selected(*paths: str) -> list[str]:
    return [file.path for file in select_files(listed(*paths))]


def test_weights_and_what_describes_them() -> None:
    wanted = [
        "additional_chat_templates/rag.jinja",
        "chat_template.jinja",
        "config.json",
        "merges.txt",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "qwen.tiktoken",
        "sentencepiece.bpe.model",
        "tokenizer.json",
        "tokenizer.model",
    ]
    never = [
        ".gitattributes",
        "README.md",
        "config.json.py",
        "flax_model.msgpack",
        "model.Q4_K_M.gguf",
        "modeling_custom.py",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "tf_model.h5",
        "training_args.pt",
        "weights.pth",
    ]
    assert selected(*never, *reversed(wanted)) == wanted


def test_copies_of_the_weights_for_other_programs_are_left_out() -> None:
    assert selected(
        "config.json",
        "consolidated.safetensors",
        "consolidated.safetensors.index.json",
        "model.safetensors",
        "onnx/config.json",
        "original/model.safetensors",
    ) == ["config.json", "model.safetensors"]
    assert selected("consolidated.safetensors", "params.json") == ["consolidated.safetensors", "params.json"]


def test_a_repository_without_weights_says_what_would_work() -> None:
    with pytest.raises(NothingToServe) as error:
        select_files(listed("config.json", "model.gguf"))
    assert "safetensors" in error.value.next_step


def test_pytorchs_own_format_is_fetched_where_there_are_no_safetensors() -> None:
    files = ["config.json", "pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json"]
    assert selected(*files, "optimizer.bin") == files


@pytest.mark.parametrize(
    "path",
    ["../model.safetensors", "/etc/model.safetensors", "a/../../x.json", "a\\..\\x.json", "a//x.json", "x\0.json"],
)
def test_a_path_that_leaves_its_folder_is_refused(path: str) -> None:
    with pytest.raises(UnsafeRepository, match="not a safe path"):
        select_files([*listed("model.safetensors"), *listed(path)])


@pytest.mark.parametrize(
    "file",
    [
        RepositoryFile("config.json", 10, ""),
        RepositoryFile("config.json", 10, "../../../../etc/passwd"),
        RepositoryFile("config.json", 10, SHA256),
        RepositoryFile("x.safetensors", 10, SHA1, SHA256),
        RepositoryFile("x.safetensors", 10, SHA256, "c" * 64),
        RepositoryFile("x.safetensors", 10, SHA256.upper(), SHA256.upper()),
    ],
)
def test_a_checksum_that_tells_nothing_is_refused(file: RepositoryFile) -> None:
    with pytest.raises(UnsafeRepository, match="checksum"):
        select_files([*listed("model.safetensors"), file])
