"""Text to token ids and back, with the facts of ``tokenizer_config.json``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer as HuggingFaceTokenizer

from serving_image.errors import StartupError
from serving_image.server.model_folder import read_json

#: Prompts longer than this many characters are tokenized in a thread (the library releases the GIL): 8,000 characters
#: take about 2 ms, and the event loop has everyone's streams to write.
THREAD_FROM_CHARACTERS = 8_000
SPECIAL_TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class Tokenizer:
    """The tokenizer of one model folder.

    :ivar special_tokens: name, such as ``bos_token``, to text: the variables that chat templates see.
    :raises StartupError: ``tokenizer.json`` cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "tokenizer.json"
        try:
            self._tokenizer = HuggingFaceTokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for any bad file
            raise StartupError(f"{path} is not a usable tokenizer: {error}.", "Fetch the model again.") from error
        # Training leftovers in some files; a prompt is never cut or filled.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.special_tokens = _special_tokens(folder)

    @property
    def eos_token_id(self) -> int | None:
        """The id of the tokenizer's own end token, if it has one."""
        text = self.special_tokens.get("eos_token")
        return None if text is None else self._tokenizer.token_to_id(text)

    async def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of ``text``; off the event loop when the text is long."""
        if len(text) > THREAD_FROM_CHARACTERS:
            return await asyncio.to_thread(self._encode, text, add_special_tokens)
        return self._encode(text, add_special_tokens)

    def _encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """The text of token ids; U+FFFD stands for bytes that are no character. Unknown ids have no text."""
        return self._tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens)


def _special_tokens(folder: Path) -> dict[str, str]:
    """``tokenizer_config.json`` wins over the older ``special_tokens_map.json``; a token is a string or an object."""
    merged = read_json(folder, "special_tokens_map.json") | read_json(folder, "tokenizer_config.json")
    tokens = {}
    for name in SPECIAL_TOKEN_NAMES:
        value = merged.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            tokens[name] = text
    return tokens
