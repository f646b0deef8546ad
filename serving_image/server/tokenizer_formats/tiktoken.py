"""Tokenizers in the format of OpenAI's tiktoken library: a line for each token, its bytes in base64 and its rank.

A text is cut by a regular expression. Within a cut, the two neighbours that are together the token of the lowest rank
are merged, until no two are one; a cut that is a token is that token at once. The ``tokenizers`` library does the same
when it is given every pair that makes a token, in the order of the ranks.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers

from serving_image.errors import StartupError
from serving_image.server.tokenizer_formats.byte_level import END_OF_TEXT, LETTER_OF_BYTE, QWEN_PATTERN, cut_by
from serving_image.server.tokenizer_formats.parts import AddedVocabulary, LoadedTokenizer, TokenizerConfig, surround


@dataclass(frozen=True)
class _Family:
    """What the file does not say.

    :ivar special: tokens after the last rank, in order.
    :ivar names: of those, the ones with a role.
    :ivar prefix: what stands before every text.
    :ivar composed: whether characters are composed first (NFC).
    """

    pattern: str
    special: tuple[str, ...]
    names: Mapping[str, str]
    prefix: tuple[str, ...] = ()
    composed: bool = False


_QWEN = _Family(
    pattern=QWEN_PATTERN,
    special=(END_OF_TEXT, "<|im_start|>", "<|im_end|>", *(f"<|extra_{number}|>" for number in range(205))),
    names={"eos_token": END_OF_TEXT, "pad_token": END_OF_TEXT},
    composed=True,
)
_GLM4 = _Family(
    pattern=QWEN_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|"),
    special=(
        *(END_OF_TEXT, "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>"),
        *("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
        *("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"),
    ),
    names={"eos_token": END_OF_TEXT, "pad_token": END_OF_TEXT},
    prefix=("[gMASK]", "<sop>"),
)


def load_qwen(path: Path, config: TokenizerConfig) -> LoadedTokenizer:
    """The first Qwen: ``qwen.tiktoken``.

    :raises StartupError: the file is not in tiktoken's format.
    """
    return _load(path, config, _QWEN)


def load_glm4(path: Path, config: TokenizerConfig) -> LoadedTokenizer:
    """GLM-4 as it was first published: ``tokenizer.model``, which is not SentencePiece's.

    :raises StartupError: as :func:`load_qwen`.
    """
    return _load(path, config, _GLM4)


def _load(path: Path, config: TokenizerConfig, family: _Family) -> LoadedTokenizer:
    ranks = read_ranks(path)
    special = {**family.names, **config.special_tokens}
    added = AddedVocabulary(config, family.special)
    text_of = {token: "".join(LETTER_OF_BYTE[byte] for byte in token) for token in ranks}
    vocabulary = {text_of[token]: rank for token, rank in ranks.items()}
    first_free = max(ranks.values()) + 1
    vocabulary |= {text: first_free + number for number, text in enumerate(family.special)}
    merges = [(text_of[left], text_of[right]) for left, right in _merges(ranks)]
    tokenizer = Tokenizer(models.BPE(vocab=added.merge_into(vocabulary), merges=merges, ignore_merges=True))
    if family.composed:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = cut_by(family.pattern)
    tokenizer.decoder = decoders.ByteLevel()
    added.add_to(tokenizer)
    surround(tokenizer, family.prefix, ())
    return LoadedTokenizer(tokenizer, special)


def read_ranks(path: Path) -> dict[bytes, int]:
    """Tokens with their ranks, which are their ids.

    :raises StartupError: a line is something else, or a single byte is no token.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise StartupError(f"{path} cannot be read: {error.strerror}.", "Check the folder.") from error
    ranks = {}
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            message = f"{path} is not a tokenizer in tiktoken's format: line {number} is no token with its rank."
            raise StartupError(message, "Fetch the model again.") from error
    if not all(bytes([byte]) in ranks for byte in range(256)) or len(set(ranks.values())) < len(ranks):
        message = f"{path} lacks tokens for single bytes, or gives two tokens one rank."
        raise StartupError(message, "Fetch the model again.")
    return ranks


def _merges(ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Every pair that makes a token, in the order of the token's rank."""
    return [
        (token[:cut], token[cut:])
        for token, _ in sorted(ranks.items(), key=lambda item: item[1])
        for cut in range(1, len(token))
        if token[:cut] in ranks and token[cut:] in ranks
    ]
