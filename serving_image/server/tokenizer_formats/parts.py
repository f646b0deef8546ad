"""What ``tokenizer_config.json`` says, and what every format ends with: added tokens and the tokens around a text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from tokenizers import AddedToken, Tokenizer
from tokenizers.processors import TemplateProcessing

from serving_image.errors import StartupError
from serving_image.server.model_folder import read_json

SPECIAL_TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
#: More than any vocabulary has; an id beyond it is a mistake in a file, not a reason to reserve memory.
LARGEST_TOKEN_ID = 1 << 24


class LoadedTokenizer(NamedTuple):
    """A tokenizer and what it does not say about itself.

    :ivar special_tokens: names, such as ``eos_token``, with their texts.
    :ivar decodes_by_context: how a token is written can depend on tokens far before it.
    """

    tokenizer: Tokenizer
    special_tokens: Mapping[str, str]
    decodes_by_context: bool = False


class _Token(msgspec.Struct):
    """A token as ``added_tokens_decoder`` writes it."""

    content: str
    special: bool = False
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


class _File(msgspec.Struct):
    """The fields of ``tokenizer_config.json`` that decide how text becomes tokens. Others, ``auto_map`` among them,
    are not looked at."""

    tokenizer_class: str | None = None
    added_tokens_decoder: dict[int, _Token] = {}
    additional_special_tokens: list[str | _Token] | None = None
    add_bos_token: bool | None = None
    add_eos_token: bool | None = None
    add_prefix_space: bool | None = None
    legacy: bool | None = None


@dataclass(frozen=True)
class TokenizerConfig:
    """What the JSON files beside a vocabulary say about it.

    :ivar tokenizer_class: without the ending ``Fast``; None when no file names one.
    :ivar special_tokens: ``bos_token`` and the like, only those that the files name.
    :ivar added_tokens: by id; they replace what the vocabulary has there.
    :ivar extra_special_tokens: texts of further special tokens, whose ids the vocabulary or ``added_tokens`` know.
    :ivar legacy: SentencePiece: whether text after a special token gets the prefix space too.
    """

    tokenizer_class: str | None
    special_tokens: dict[str, str]
    added_tokens: Mapping[int, AddedToken]
    extra_special_tokens: Sequence[str]
    add_bos_token: bool | None
    add_eos_token: bool | None
    add_prefix_space: bool | None
    legacy: bool | None


def read_tokenizer_config(folder: Path) -> TokenizerConfig:
    """What ``tokenizer_config.json`` and the older files beside it say.

    :raises StartupError: a value has an impossible type.
    """
    raw = read_json(folder, "tokenizer_config.json")
    try:
        file = msgspec.convert(raw, _File, strict=False)
        older = msgspec.convert(read_json(folder, "added_tokens.json"), dict[str, int])
    except msgspec.ValidationError as error:
        message = f"tokenizer_config.json or added_tokens.json of {folder} holds an impossible value: {error}."
        raise StartupError(message, "Fetch the model again.") from error
    name = file.tokenizer_class or read_json(folder, "config.json").get("tokenizer_class")
    added = {id_: _added(text, special=False) for text, id_ in older.items()}
    added |= {
        id_: AddedToken(
            token.content,
            special=token.special,
            lstrip=token.lstrip,
            rstrip=token.rstrip,
            single_word=token.single_word,
            normalized=False,
        )
        for id_, token in file.added_tokens_decoder.items()
    }
    if added and not 0 <= min(added) <= max(added) <= LARGEST_TOKEN_ID:
        message = f"tokenizer_config.json of {folder} adds a token with the id {max(added, key=abs)}."
        raise StartupError(message, "Fetch the model again.")
    extra = [token if isinstance(token, str) else token.content for token in file.additional_special_tokens or ()]
    return TokenizerConfig(
        tokenizer_class=name.removesuffix("Fast") if isinstance(name, str) else None,
        special_tokens=_special_tokens(read_json(folder, "special_tokens_map.json") | raw),
        added_tokens=added,
        extra_special_tokens=extra,
        add_bos_token=file.add_bos_token,
        add_eos_token=file.add_eos_token,
        add_prefix_space=file.add_prefix_space,
        legacy=file.legacy,
    )


def _special_tokens(fields: Mapping[str, Any]) -> dict[str, str]:
    """A token is written as a string or an object."""
    tokens = {}
    for name in SPECIAL_TOKEN_NAMES:
        value = fields.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            tokens[name] = text
    return tokens


def _added(text: str, *, special: bool) -> AddedToken:
    return AddedToken(text, special=special, normalized=False)


class AddedVocabulary:
    """Tokens that are found in a text before the model's own rules see it.

    Build it before the tokenizer: ids are fixed by writing the tokens into the model's vocabulary
    (:meth:`merge_into`), because the library itself numbers added tokens one after the other.

    :param special: texts of special tokens that the format itself defines, at the ids that the vocabulary gives them.
    """

    def __init__(self, config: TokenizerConfig, special: Iterable[str] = ()) -> None:
        self._by_id = dict(config.added_tokens)
        # Special tokens that the files name without an id: the vocabulary may know them, else they come after it.
        self._named = [*special, *config.special_tokens.values(), *config.extra_special_tokens]

    def merge_into(self, vocabulary: dict[str, int]) -> dict[str, int]:
        """``vocabulary`` with every added token at its id, in place of what was there."""
        replaced = {text for text, id_ in vocabulary.items() if id_ in self._by_id}
        merged = {text: id_ for text, id_ in vocabulary.items() if text not in replaced}
        merged |= {token.content: id_ for id_, token in self._by_id.items()}
        free = max(merged.values(), default=-1) + 1
        for text in self._named:
            if text not in merged:
                merged[text] = free
                free += 1
        return merged

    def add_to(self, tokenizer: Tokenizer) -> None:
        """Have ``tokenizer`` find the tokens in texts, and leave special ones out of what it decodes."""
        flagged = {token.content: token for token in self._by_id.values()}
        named = [flagged.get(text, _added(text, special=True)) for text in dict.fromkeys(self._named)]
        for token in named:
            token.special = True
        tokenizer.add_special_tokens(named)
        tokenizer.add_special_tokens([token for token in flagged.values() if token.special])
        tokenizer.add_tokens([token for token in flagged.values() if not token.special])


def surround(tokenizer: Tokenizer, before: Sequence[str], after: Sequence[str]) -> None:
    """Put special tokens before and after every text that is encoded with special tokens."""
    ids = {text: tokenizer.token_to_id(text) for text in (*before, *after)}
    missing = [text for text, id_ in ids.items() if id_ is None]
    if missing:
        message = f"The tokenizer begins or ends texts with {missing[0]}, which its vocabulary does not have."
        raise StartupError(message, "Fetch the model again.")
    if ids:
        tokenizer.post_processor = TemplateProcessing(single=[*before, "$A", *after], special_tokens=list(ids.items()))


def ends_of(config: TokenizerConfig, special: Mapping[str, str], *, bos: bool) -> tuple[list[str], list[str]]:
    """What the flags ``add_bos_token`` (``bos`` if it is not given) and ``add_eos_token`` put around a text."""
    add_bos = bos if config.add_bos_token is None else config.add_bos_token
    before = [special["bos_token"]] if add_bos and "bos_token" in special else []
    after = [special["eos_token"]] if config.add_eos_token and "eos_token" in special else []
    return before, after
