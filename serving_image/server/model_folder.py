"""The folder of a model: where it is, and what its small JSON files say to the server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from serving_image.errors import StartupError
from serving_image.models.check import REFUSED
from serving_image.options import LoadFormat

#: A hub id: `name` or `organisation/name`, with the hub's own alphabet.
HUB_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
#: What is fetched of a hub model. Never code.
ALLOWED_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.tiktoken", "merges.txt"]
#: Weights in PyTorch's format, fetched where there are no others. The loader unpickles tensors and nothing else.
PYTORCH_FILES = ["pytorch_model*.bin"]
#: Second copies of the weights in their makers' own layouts.
IGNORED_FILES = ["original/*", "metal/*", "onnx/*", "consolidated*.safetensors"]
#: One of these holds the tokenizer's vocabulary.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "sentencepiece.bpe.model", "qwen.tiktoken", "vocab.json")


@dataclass(frozen=True)
class GenerationDefaults:
    """What ``generation_config.json`` and ``config.json`` say about choosing and ending.

    All but the end tokens are the model's recommendation for requests that do not say, as vLLM applies it.
    """

    eos_token_ids: frozenset[int]
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


def resolve_model(model: str, revision: str | None, load_format: LoadFormat) -> Path:
    """The local folder of a model; a hub model is fetched into the Hugging Face cache first.

    :raises StartupError: there is no such model, it cannot be fetched, or files that serving needs are not there.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        if folder.exists():
            raise StartupError(f"{model} is a file.", "Name the folder that holds config.json and the weights.")
        if model.startswith((".", "/", "~")) or not HUB_ID.fullmatch(model):
            raise StartupError(f"There is no folder {model}.", "Name an existing folder or a hub id like org/name.")
        folder = _fetch(model, revision)
    elif revision is not None:
        raise StartupError("--revision means nothing for a local folder.", "Leave it out.")
    _check_files(folder, load_format)
    return folder.resolve()


def _check_files(folder: Path, load_format: LoadFormat) -> None:
    _check_config(folder)
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        message = f"{folder} holds no tokenizer: none of {', '.join(TOKENIZER_FILES)}."
        raise StartupError(message, "Save the model's fast tokenizer beside it (tokenizer.save_pretrained).")
    if load_format != "dummy" and not _has_weights(folder):
        message = f"{folder} holds no weights: neither *.safetensors nor pytorch_model*.bin."
        raise StartupError(message, "Convert the model to safetensors, or try --load-format dummy.")


def _check_config(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise StartupError(f"{folder} holds no config.json.", "Name the folder of a model in Hugging Face format.")


def _has_safetensors(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))


def _has_weights(folder: Path) -> bool:
    return _has_safetensors(folder) or any(folder.glob(PYTORCH_FILES[0]))


def _fetch(model: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - 0.3 s that a local folder need not pay

    fetch = partial(snapshot_download, model, revision=revision, ignore_patterns=IGNORED_FILES)
    with _told(model, revision):
        path = Path(fetch(allow_patterns=["config.json"]))
    _check_config(path)
    if not _has_weights(path):
        _check_served(path)
    with _told(model, revision):
        path = Path(fetch(allow_patterns=ALLOWED_FILES))
        if not _has_safetensors(path):
            path = Path(fetch(allow_patterns=[*ALLOWED_FILES, *PYTORCH_FILES]))
    return path


def _check_served(folder: Path) -> None:
    """Before gigabytes are fetched.

    :raises StartupError: the engine does not serve a model of this configuration.
    """
    argv = [sys.executable, "-m", "serving_image.models.check", str(folder)]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    if ended.returncode == REFUSED:
        raise StartupError(*json.loads(ended.stdout))
    if ended.returncode:
        raise StartupError(
            f"{folder}/config.json could not be checked: {ended.stderr[-500:]}.", "Download the model by hand."
        )


@contextmanager
def _told(model: str, revision: str | None) -> Iterator[None]:
    """What goes wrong at the hub, in terms of a model."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError  # noqa: PLC0415

    try:
        yield
    except GatedRepoError as error:
        message = f"{model} is gated: its owner asks each person to accept terms."
        raise StartupError(message, "Accept them on the model's page and set HF_TOKEN.") from error
    except RevisionNotFoundError as error:
        raise StartupError(f"{model} has no revision {revision}.", "Name a branch, tag or commit of it.") from error
    except RepositoryNotFoundError as error:
        message = f"The hub has no model {model}, or it is private."
        raise StartupError(message, "Check the id; for a private model set HF_TOKEN.") from error
    except Exception as error:
        # huggingface_hub raises its HTTP library's errors, its own, OSError and ValueError: all mean "not fetched".
        message = f"{model} cannot be fetched from the hub: {error}."
        raise StartupError(message, "Check the network, HF_ENDPOINT and HF_HUB_OFFLINE, or name a folder.") from error


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """The object in ``folder/name``; an absent file is an empty one.

    :raises StartupError: the file is not a JSON object.
    """
    path = folder / name
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StartupError(f"{path} cannot be read: {os.strerror(error.errno or 0)}.", "Check the folder.") from error
    except msgspec.DecodeError as error:
        raise StartupError(f"{path} is not a JSON object: {error}.", "Fetch the model again.") from error


def read_generation_defaults(folder: Path) -> GenerationDefaults:
    """End tokens and sampling defaults. Without generation_config.json the end tokens of config.json count.

    :raises StartupError: a value has an impossible type.
    """
    generation = read_json(folder, "generation_config.json")
    eos = generation.get("eos_token_id", read_json(folder, "config.json").get("eos_token_id"))
    try:
        ids = msgspec.convert([] if eos is None else eos if isinstance(eos, list) else [eos], list[int])
        return GenerationDefaults(
            eos_token_ids=frozenset(ids),
            temperature=_number(generation.get("temperature"), 1.0),
            top_p=_number(generation.get("top_p"), 1.0),
            top_k=max(0, int(_number(generation.get("top_k"), 0))),
            min_p=_number(generation.get("min_p"), 0.0),
            repetition_penalty=_number(generation.get("repetition_penalty"), 1.0),
        )
    except msgspec.ValidationError as error:
        message = f"generation_config.json of {folder} holds an impossible value: {error}."
        raise StartupError(message, "Correct or remove the file.") from error


def _number(value: object, default: float) -> float:
    return default if value is None else msgspec.convert(value, float)
