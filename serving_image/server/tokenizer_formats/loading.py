"""Which format a model's tokenizer has, by the files it brings and the class that its configuration names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer

from serving_image.errors import StartupError
from serving_image.server.tokenizer_formats.byte_level import load_gpt2, load_qwen2
from serving_image.server.tokenizer_formats.moses import load_biogpt
from serving_image.server.tokenizer_formats.parts import LoadedTokenizer, TokenizerConfig, read_tokenizer_config
from serving_image.server.tokenizer_formats.sentencepiece import load_chatglm, load_sentencepiece, load_xglm
from serving_image.server.tokenizer_formats.tiktoken import load_glm4, load_qwen

#: What would work, for every refusal.
REMEDY = "Save the model's fast tokenizer beside it as tokenizer.json (tokenizer.save_pretrained of Transformers)."


class _Format(NamedTuple):
    """``load`` takes the file, or the folder where ``file`` is one of two."""

    file: str
    load: Callable[[Path, TokenizerConfig], LoadedTokenizer]


def _in_folder(load: Callable[[Path, TokenizerConfig], LoadedTokenizer]) -> Callable[..., LoadedTokenizer]:
    return lambda path, config: load(path.parent, config)


_GPT2 = _Format("vocab.json", _in_folder(load_gpt2))
_LLAMA = _Format("tokenizer.model", load_sentencepiece)
_QWEN = _Format("qwen.tiktoken", load_qwen)
#: The classes of Transformers and of checkpoints' own code, without the ending ``Fast``, that these formats serve.
_FORMATS: Mapping[str, _Format] = {
    "GPT2Tokenizer": _GPT2,
    "CodeGenTokenizer": _GPT2,
    "Qwen2Tokenizer": _Format("vocab.json", _in_folder(load_qwen2)),
    "BioGptTokenizer": _Format("vocab.json", _in_folder(load_biogpt)),
    "LlamaTokenizer": _LLAMA,
    "CodeLlamaTokenizer": _LLAMA,
    "GemmaTokenizer": _LLAMA,
    "ArcticTokenizer": _LLAMA,
    "BaichuanTokenizer": _LLAMA,
    "InternLMTokenizer": _LLAMA,
    "InternLM2Tokenizer": _LLAMA,
    "InternLM3Tokenizer": _LLAMA,
    "OrionTokenizer": _LLAMA,
    "YiTokenizer": _LLAMA,
    "ChatGLMTokenizer": _Format("tokenizer.model", load_chatglm),
    "XGLMTokenizer": _Format("sentencepiece.bpe.model", load_xglm),
    "QWenTokenizer": _QWEN,
    "ChatGLM4Tokenizer": _Format("tokenizer.model", load_glm4),
}
#: Where no class is named, the file alone tells.
_BY_FILE = (_QWEN, _LLAMA, _GPT2)


def load_tokenizer(folder: Path) -> LoadedTokenizer:
    """The tokenizer of a model's folder. Nothing in the folder is executed.

    :raises StartupError: there is no tokenizer, it is broken, or only the model's own code knows how to read it.
    """
    config = read_tokenizer_config(folder)
    if (folder / "tokenizer.json").is_file():
        return LoadedTokenizer(_tokenizer_json(folder / "tokenizer.json", config), config.special_tokens)
    format_ = _format(folder, config.tokenizer_class)
    path = folder / format_.file
    if not path.is_file():
        message = (
            f"{folder} holds neither tokenizer.json nor {format_.file}, one of which {config.tokenizer_class} needs."
        )
        raise StartupError(message, "Fetch the model again, with its tokenizer.")
    try:
        return format_.load(path, config)
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise _unusable(path, error) from error  # what the library finds wrong is a bare Exception


def _format(folder: Path, tokenizer_class: str | None) -> _Format:
    if tokenizer_class is None:
        found = next((format_ for format_ in _BY_FILE if (folder / format_.file).is_file()), None)
        if found is None:
            raise StartupError(f"{folder} holds no tokenizer that could be read.", REMEDY)
        return found
    known = _FORMATS.get(tokenizer_class)
    if known is None:
        message = (
            f"{folder} holds no tokenizer.json, and its tokenizer class {tokenizer_class} is none that is known; code "
            "that comes with a model is never run."
        )
        raise StartupError(message, REMEDY)
    return known


def _tokenizer_json(path: Path, config: TokenizerConfig) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for any bad file
        raise _unusable(path, error) from error
    # Training leftovers in some files; a prompt is never cut or filled.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # Fine-tuning sometimes adds tokens in the configuration alone; numbered as Transformers does, one after the other.
    added = [token for _, token in sorted(config.added_tokens.items()) if tokenizer.token_to_id(token.content) is None]
    tokenizer.add_tokens(added)
    return tokenizer


def _unusable(path: Path, error: Exception) -> StartupError:
    return StartupError(f"{path} is not a usable tokenizer: {error}.", "Fetch the model again.")
