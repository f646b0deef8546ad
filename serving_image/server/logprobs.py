"""Log-probabilities on their way to the client: held until their text is given out, then put in OpenAI's shapes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from msgspec import Struct

from serving_image.engine.protocol import TokenLogprobs
from serving_image.server.detokenizer import IncrementalDetokenizer
from serving_image.server.tokenizer import Tokenizer

#: JSON has no infinity; vLLM's stand-in for the logarithm of 0.
LOWEST = -9999.0


class ScoredToken(NamedTuple):
    """A token, and where its text begins in its choice's text.

    A token that begins within a character is counted to where that character begins. ``logprobs`` is None for the
    first token of a prompt: nothing predicts it.
    """

    token_id: int
    text_offset: int
    logprobs: TokenLogprobs | None


class HeldTokens:
    """Scored tokens whose text is not given out yet, because a character or a stop string may be unfinished in it."""

    def __init__(self) -> None:
        self._tokens: list[ScoredToken] = []
        self._ends: list[int | None] = []

    def push(self, token: ScoredToken, end: int, *, unfinished: bool) -> None:
        """Hold one more token. ``end`` is the length of the text with it; ``unfinished``: a character goes on after."""
        self._tokens.append(token)
        self._ends.append(None if unfinished else end)

    def release(self, length: int) -> list[ScoredToken]:
        """The tokens, from the oldest, whose characters are all among the first ``length``."""
        count = 0
        for position, end in enumerate(self._ends, start=1):
            if end is not None:
                if end > length:
                    break
                count = position
        return self._take(count)

    def flush(self) -> list[ScoredToken]:
        """All tokens, at the end of the sequence."""
        return self._take(len(self._tokens))

    def _take(self, count: int) -> list[ScoredToken]:
        taken = self._tokens[:count]
        del self._tokens[:count], self._ends[:count]
        return taken


class CompletionLogprobs(Struct, frozen=True):
    """OpenAI's older shape: one entry per token in each list."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TopLogprob(Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int]


class ChatLogprob(Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Struct, frozen=True):
    content: list[ChatLogprob]
    refusal: None = None


class PromptLogprob(Struct, frozen=True):
    """vLLM's entry for one token at one place of a prompt."""

    logprob: float
    rank: int
    decoded_token: str


PromptLogprobs = list[dict[int, PromptLogprob] | None]


def completion_logprobs(tokenizer: Tokenizer, tokens: Iterable[ScoredToken], most: int) -> CompletionLogprobs:
    """OpenAI's lists for a completion: ``most`` of the best tokens at each place, and the token itself."""
    result = CompletionLogprobs([], [], [], [])
    for token_id, text_offset, scored in tokens:
        result.tokens.append(_text(tokenizer, token_id))
        result.text_offset.append(text_offset)
        result.token_logprobs.append(None if scored is None else _finite(scored.logprob))
        result.top_logprobs.append(None if scored is None else _by_text(tokenizer, scored, most))
    return result


def chat_logprobs(tokenizer: Tokenizer, tokens: Iterable[ScoredToken], most: int) -> ChatLogprobs:
    """OpenAI's list for a chat message: ``most`` of the best tokens at each place beside the token itself."""
    return ChatLogprobs(
        [_chat_logprob(tokenizer, entry.logprobs, most) for entry in tokens if entry.logprobs is not None]
    )


def prompt_logprobs(tokenizer: Tokenizer, scored: Iterable[TokenLogprobs], most: int) -> PromptLogprobs:
    """vLLM's list for a prompt: None for the first token, then by id the prompt's own token and ``most`` of the best.

    :param scored: one entry per prompt token but the first.
    """
    return [None, *(_by_id(tokenizer, entry, most) for entry in scored)]


def scored_prompt(
    tokenizer: Tokenizer, token_ids: Sequence[int], scored: Sequence[TokenLogprobs], text_length: int
) -> list[ScoredToken]:
    """An echoed prompt's tokens, with their places in its text.

    :param scored: one entry per prompt token but the first.
    :param text_length: of the echoed text. It is the client's own, which a tokenizer may have normalised to a longer
        one; no offset lies beyond it.
    """
    detokenizer = IncrementalDetokenizer(tokenizer, [], skip_special_tokens=True)
    tokens, length = [], 0
    for token_id, entry in zip(token_ids, (None, *scored), strict=True):
        tokens.append(ScoredToken(token_id, min(length, text_length), entry))
        length += len(detokenizer.push(token_id))
    return tokens


def _best(scored: TokenLogprobs, most: int) -> Iterator[tuple[int, float]]:
    """The best tokens and their scores, in falling order."""
    return zip(scored.top_ids[:most], map(_finite, scored.top_logprobs), strict=False)


def _chat_logprob(tokenizer: Tokenizer, scored: TokenLogprobs, most: int) -> ChatLogprob:
    top = [
        TopLogprob(_text(tokenizer, token_id), logprob, list(tokenizer.bytes_of(token_id)))
        for token_id, logprob in _best(scored, most)
    ]
    own = scored.token_id
    return ChatLogprob(_text(tokenizer, own), _finite(scored.logprob), list(tokenizer.bytes_of(own)), top)


def _by_id(tokenizer: Tokenizer, scored: TokenLogprobs, most: int) -> dict[int, PromptLogprob]:
    own = scored.token_id
    entries = {own: PromptLogprob(_finite(scored.logprob), scored.rank, _text(tokenizer, own))}
    for rank, (token_id, logprob) in enumerate(_best(scored, most), start=1):
        entries.setdefault(token_id, PromptLogprob(logprob, rank, _text(tokenizer, token_id)))
    return entries


def _by_text(tokenizer: Tokenizer, scored: TokenLogprobs, most: int) -> dict[str, float]:
    """Text to score. Tokens may share a text (parts of characters do): the chosen one counts, else the better one."""
    top = {_text(tokenizer, scored.token_id): _finite(scored.logprob)}
    for token_id, logprob in _best(scored, most):
        top.setdefault(_text(tokenizer, token_id), logprob)
    return top


def _finite(logprob: float) -> float:
    return max(logprob, LOWEST)


def _text(tokenizer: Tokenizer, token_id: int) -> str:
    """A token's text alone; U+FFFD stands for a part of a character."""
    return tokenizer.bytes_of(token_id).decode(errors="replace")
