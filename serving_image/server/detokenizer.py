"""Token ids to text as they come, never half a character.

A token may end inside a character (byte-level tokenizers split UTF-8) and may change how its neighbours are written
(SentencePiece drops the first space). So a small window of tokens is decoded again with each new one, and only what
is certain is given out. A character that is unfinished when the sequence ends never is. (A tokenizer that decodes by
context has the whole text for its window.) ::

    ids        … a  b │ c  d        window = [prefix:]; text of [prefix:read] has been given out
                 ▲    ▲
              prefix  read          decode(window) = given out ++ new ++ trailing U+FFFD (an unfinished character)
"""

from __future__ import annotations

from collections.abc import Sequence

from serving_image.server.tokenizer import Tokenizer

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
#: Prompt tokens in the first window: what decides whether the first new token starts with a space.
PROMPT_TAIL = 5
#: A character has at most 4 bytes, so 3 replacement characters can still become one. More are held back only while
#: few tokens are: in SentencePiece's byte fallback a whole run of bytes is replaced until its last one has come.
UNFINISHED_BYTES = 3
HOLD_TOKENS = 16


class IncrementalDetokenizer:
    """The text of one growing sequence.

    :param prompt_token_ids: what stands before the new tokens; its text is not given out.
    :ivar unfinished: whether the tokens so far end within a character.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_token_ids: Sequence[int], *, skip_special_tokens: bool) -> None:
        self._tokenizer = tokenizer
        self._skip_special_tokens = skip_special_tokens
        self._window = list(prompt_token_ids[0 if tokenizer.decodes_by_context else -PROMPT_TAIL :])
        self._read = len(self._window)
        self._given_out = len(self._decode(self._window))
        self.unfinished = False

    def push(self, token_id: int) -> str:
        """Add one token; returns the text that has become certain, often empty."""
        self._window.append(token_id)
        text = self._decode(self._window)
        certain = text.rstrip(REPLACEMENT)
        if len(self._window) - self._read > HOLD_TOKENS:
            certain = text[: max(len(certain), len(text) - UNFINISHED_BYTES)]
        new = certain[self._given_out :]
        self._given_out = max(self._given_out, len(certain))
        self.unfinished = len(certain) < len(text)
        if new and not self.unfinished and not self._tokenizer.decodes_by_context:
            # The window ends with a whole character: its older part is no longer needed.
            self._window = self._window[self._read :]
            self._read = len(self._window)
            self._given_out = len(self._decode(self._window))
        return new

    def _decode(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=self._skip_special_tokens)
