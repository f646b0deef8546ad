"""Text to token ids and back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

from serving_image.server.tokenizer_formats import load_tokenizer
from serving_image.server.tokenizer_formats.byte_level import BYTE_OF_LETTER

#: Prompts longer than this many characters are tokenized in a thread (the library releases the GIL): 8,000 characters
#: take about 2 ms, and the event loop has everyone's streams to write.
THREAD_FROM_CHARACTERS = 8_000
#: SentencePiece's tokens for bytes that no other token writes.
_BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")


class Tokenizer:
    """The tokenizer of one model folder.

    :ivar special_tokens: name, such as ``bos_token``, to text: the variables that chat templates see.
    :ivar decodes_by_context: how a token is written can depend on tokens far before it.
    :raises StartupError: there is none, or none that can be read without running the model's own code.
    """

    def __init__(self, folder: Path) -> None:
        self._tokenizer, self.special_tokens, self.decodes_by_context = load_tokenizer(folder)
        # How the decoder treats tokens that are bytes, found by asking it: its parts can be nested in many ways.
        self._byte_level = self._decodes(["Ã", "©"], "é")
        self._byte_fallback = self._decodes(["<0xC3>", "<0xA9>"], "é")
        self._bytes: dict[int, bytes] = {}

    @property
    def eos_token_id(self) -> int | None:
        """The id of the tokenizer's own end token, if it has one."""
        text = self.special_tokens.get("eos_token")
        return None if text is None else self._tokenizer.token_to_id(text)

    def added_token_id(self, text: str) -> int | None:
        """The id of a token that is found in a text before all others, such as a special one."""
        id_ = self._tokenizer.token_to_id(text)
        return id_ if id_ in self._tokenizer.get_added_tokens_decoder() else None

    def _decodes(self, tokens: list[str], text: str) -> bool:
        decoder = self._tokenizer.decoder
        return decoder is not None and decoder.decode(tokens) == text

    async def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of ``text``; off the event loop when the text is long."""
        if len(text) > THREAD_FROM_CHARACTERS:
            return await asyncio.to_thread(self._encode, text, add_special_tokens)
        return self._encode(text, add_special_tokens)

    async def encode_all(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[list[int]]:
        """Token ids of each of ``texts``; off the event loop when they are long together."""
        if sum(map(len, texts)) > THREAD_FROM_CHARACTERS:
            return await asyncio.to_thread(self._encode_all, texts, add_special_tokens)
        return self._encode_all(texts, add_special_tokens)

    def _encode_all(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[int]]:
        return [self._encode(text, add_special_tokens) for text in texts]

    def _encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids

    def bytes_of(self, token_id: int) -> bytes:
        """What one token writes within a text; a part of a character where the tokenizer cuts characters.

        A special token writes its own name here. An id that the vocabulary pads has no bytes.
        """
        known = self._bytes.get(token_id)
        if known is None:
            known = self._bytes[token_id] = self._bytes_of(token_id)
        return known

    def _bytes_of(self, token_id: int) -> bytes:
        token = self._tokenizer.id_to_token(token_id)
        if token is None:
            return b""
        if self._byte_level:
            # The decoder takes a token with any other letter, which must be an added one, as it stands.
            letters = [BYTE_OF_LETTER.get(letter) for letter in token]
            return token.encode() if None in letters else bytes(letter for letter in letters if letter is not None)
        if self._byte_fallback and (byte := _BYTE_TOKEN.fullmatch(token)):
            return bytes.fromhex(byte[1])
        # The second of two: SentencePiece writes the first token of a text without its space.
        once, twice = (self.decode([token_id] * count, skip_special_tokens=False) for count in (1, 2))
        return twice[len(once) :].encode() if twice.startswith(once) else once.encode()

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """The text of token ids; U+FFFD stands for bytes that are no character. Unknown ids have no text."""
        return self._tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens)
