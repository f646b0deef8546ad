"""Byte-level BPE from ``vocab.json`` and ``merges.txt``: the tokenizers that are older than ``tokenizer.json``."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from serving_image.errors import StartupError
from serving_image.server.tokenizer_formats.parts import (
    AddedVocabulary,
    LoadedTokenizer,
    TokenizerConfig,
    ends_of,
    surround,
)

END_OF_TEXT = "<|endoftext|>"
#: Byte-level vocabularies write each byte as a letter: a printable one of Latin-1 as itself, the others, in order, as
#: the letters from U+0100 (GPT-2's table).
_PRINTABLE = frozenset((*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)))
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
BYTE_OF_LETTER = {chr(byte): byte for byte in _PRINTABLE} | {chr(256 + i): byte for i, byte in enumerate(_OTHERS)}
LETTER_OF_BYTE = {byte: letter for letter, byte in BYTE_OF_LETTER.items()}
#: Where Qwen's tokenizers cut a text before merging: words with what stands before them, single digits, runs of signs.
QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def load_gpt2(folder: Path, config: TokenizerConfig) -> LoadedTokenizer:
    """GPT-2, OPT, GPT-Neo, CodeGen.

    :raises StartupError: one of the two files cannot be read.
    """
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT) | config.special_tokens
    before_merging = pre_tokenizers.ByteLevel(add_prefix_space=bool(config.add_prefix_space))
    return _load(folder, config, special, before_merging)


def load_qwen2(folder: Path, config: TokenizerConfig) -> LoadedTokenizer:
    """Qwen2: composed characters (NFC), and Qwen's own cuts.

    :raises StartupError: as :func:`load_gpt2`.
    """
    special = {"eos_token": END_OF_TEXT, "pad_token": END_OF_TEXT} | config.special_tokens
    loaded = _load(folder, config, special, cut_by(QWEN_PATTERN))
    loaded.tokenizer.normalizer = normalizers.NFC()
    return loaded


def cut_by(pattern: str) -> pre_tokenizers.PreTokenizer:
    """Cut a text by a regular expression, and write its bytes as letters."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def read_vocabulary(folder: Path) -> dict[str, int]:
    """:raises StartupError: ``vocab.json`` does not hold token texts with their ids."""
    path = folder / "vocab.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, int])
    except (OSError, msgspec.DecodeError) as error:
        raise _unusable(path, error) from error


def read_merges(folder: Path) -> list[tuple[str, str]]:
    """The pairs of ``merges.txt``, a line each, the first to be merged first. A third column counts occurrences.

    :raises StartupError: a line does not hold a pair.
    """
    path = folder / "merges.txt"
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(path, error) from error
    pairs = []
    for number, line in enumerate(lines, 1):
        if not line.strip(" \r") or (number == 1 and line.startswith("#version")):
            continue
        parts = line.rstrip("\r").split(" ")
        if len(parts) < 2:
            raise StartupError(f"{path} has no pair in line {number}.", "Fetch the model again.")
        pairs.append((parts[0], parts[1]))
    return pairs


def _unusable(path: Path, error: Exception) -> StartupError:
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    return StartupError(f"{path} is not a usable part of a tokenizer: {reason}.", "Fetch the model again.")


def _load(
    folder: Path, config: TokenizerConfig, special: dict[str, str], before_merging: pre_tokenizers.PreTokenizer
) -> LoadedTokenizer:
    added = AddedVocabulary(config, special.values())
    tokenizer = Tokenizer(models.BPE(vocab=added.merge_into(read_vocabulary(folder)), merges=read_merges(folder)))
    tokenizer.pre_tokenizer = before_merging
    tokenizer.decoder = decoders.ByteLevel()
    added.add_to(tokenizer)
    surround(tokenizer, *ends_of(config, special, bos=False))
    return LoadedTokenizer(tokenizer, special)
