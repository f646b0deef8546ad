"""Why a request can never run. The server has checked its form; this is what only the engine knows."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import chain
from typing import NamedTuple

from serving_image.engine.protocol import AddRequest


class EngineLimits(NamedTuple):
    """``cache_tokens`` is how many tokens of one request fit in all blocks together, ``max_model_len`` at most."""

    vocab_size: int
    max_model_len: int
    cache_tokens: int


def problem(message: AddRequest, limits: EngineLimits) -> str | None:
    """A sentence for the user if the request can never run; None if it can."""
    prompt, sampling = message.prompt_token_ids, message.sampling
    if not prompt:
        return "The prompt is empty."
    if len(prompt) >= limits.max_model_len:
        return (
            f"The prompt has {len(prompt)} tokens, but prompt and answer together may have {limits.max_model_len}. "
            "Shorten the prompt."
        )
    if sampling.max_tokens < 1:
        return "max_tokens must be at least 1."
    # The last token of an answer is never computed itself.
    needed = min(limits.max_model_len, len(prompt) + sampling.max_tokens) - 1
    if needed > limits.cache_tokens:
        return (
            f"Prompt and answer together need room for {needed} tokens, but the key/value cache has "
            f"{limits.cache_tokens}. Shorten the prompt or lower max_tokens."
        )
    if sampling.allowed_token_ids is not None and not sampling.allowed_token_ids:
        return "allowed_token_ids is empty, so no token could be chosen. Name at least one, or leave it out."
    return _foreign_token("The prompt", prompt, limits) or _foreign_sampling_token(message, limits)


def _foreign_sampling_token(message: AddRequest, limits: EngineLimits) -> str | None:
    sampling = message.sampling
    parts: Iterable[tuple[str, Collection[int]]] = (
        ("logit_bias", sampling.logit_bias),
        ("allowed_token_ids", sampling.allowed_token_ids or []),
        ("bad_words", list(chain.from_iterable(sampling.bad_words))),
    )
    return next((found for name, ids in parts if (found := _foreign_token(name, ids, limits))), None)


def _foreign_token(where: str, token_ids: Collection[int], limits: EngineLimits) -> str | None:
    if token_ids and (min(token_ids) < 0 or max(token_ids) >= limits.vocab_size):
        return f"{where} has a token id outside 0 … {limits.vocab_size - 1}."
    return None
