"""Models and running servers for the serving image's tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.hub.models import tiny_llama
from tests.serving_image.serving import RunningServer, running_server

EchoModel = Callable[..., Path]


def make_echo_model(folder: Path, **settings: Any) -> Path:
    """A model folder for the echo engine, with one token per byte; ``settings`` are the engine's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: id_ for id_, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    template = "{{ messages[-1]['content'] }}"
    files = {
        "config.json": {"vocab_size": 258, "echo": settings},
        "generation_config.json": {"eos_token_id": [257]},
        "tokenizer_config.json": {"bos_token": "<s>", "eos_token": "</s>", "chat_template": template},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "model.safetensors").touch()
    return folder


@pytest.fixture
def echo_model(tmp_path: Path) -> EchoModel:
    """Makes a model folder for the echo engine; arguments are its settings."""
    return lambda **settings: make_echo_model(tmp_path / "echo", **settings)


@pytest.fixture(scope="session")
def echo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose model repeats its prompt, one byte a token."""
    folder = make_echo_model(tmp_path_factory.mktemp("echo"), max_model_len=512)
    with running_server(folder, "--served-model-name", "echo", engine="echo") as server:
        yield server


@pytest.fixture(scope="session")
def echo_client(echo_server: RunningServer) -> Iterator[openai.OpenAI]:
    with echo_server.client() as client:
        yield client


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with random weights and a real tokenizer."""
    return tiny_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def llama_server(llama_folder: Path) -> Iterator[RunningServer]:
    """The real engine serving the tiny Llama in float32 on one thread."""
    options = ["--served-model-name", "llama", "--dtype", "float32", "--threads", "1", "--kv-cache-memory", "33554432"]
    with running_server(llama_folder, *options) as server:
        yield server
