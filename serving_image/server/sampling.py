"""From a request's fields to the engine's sampling parameters, within what the model can do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from serving_image.engine.protocol import EngineReady, SamplingParams
from serving_image.server.errors import ApiError
from serving_image.server.model_folder import GenerationDefaults
from serving_image.server.requests import GenerationRequest
from serving_image.server.tokenizer import Tokenizer

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class ModelLimits:
    """What bounds a request to one model.

    :ivar max_model_len: tokens of prompt and answer together.
    :ivar vocab_size: ids are below it.
    """

    max_model_len: int
    vocab_size: int
    defaults: GenerationDefaults

    @classmethod
    def of(cls, ready: EngineReady, defaults: GenerationDefaults) -> ModelLimits:
        return cls(ready.max_model_len, ready.vocab_size, defaults)

    def check_prompt(self, token_ids: list[int], param: str) -> None:
        """:raises ApiError: the prompt is empty, leaves no room for an answer, or holds an id beyond the vocabulary."""
        if not token_ids:
            raise ApiError(400, f"{param} is empty; at least one token is needed.", param=param)
        if len(token_ids) >= self.max_model_len:
            message = (
                f"This model's maximum context length is {self.max_model_len} tokens and the prompt has "
                f"{len(token_ids)}; shorten it to {self.max_model_len - 1} or fewer."
            )
            raise ApiError(400, message, param=param, code="context_length_exceeded")
        self.check_ids(token_ids, param)

    def check_ids(self, token_ids: Iterable[int], param: str) -> None:
        """:raises ApiError: an id lies beyond the vocabulary (400)."""
        highest = max(token_ids, default=0)
        if highest >= self.vocab_size:
            message = f"{param} holds the token id {highest}; the vocabulary ends at {self.vocab_size - 1}."
            raise ApiError(400, message, param=param)


def sampling_params(
    request: GenerationRequest,
    limits: ModelLimits,
    bad_words: list[list[int]],
    num_prompt_tokens: int,
    sequence: int,
) -> SamplingParams:
    """Parameters of one sequence.

    :param bad_words: the token sequences of the request's `bad_words`; see :func:`tokenize_bad_words`.
    :param sequence: its number within `n`; a given seed is shifted by it, or all would be equal.
    :raises ApiError: fields contradict each other or the model (400).
    """
    defaults = limits.defaults
    max_tokens, min_tokens = _max_tokens(request, limits, num_prompt_tokens), request.min_tokens or 0
    for name in ("stop_token_ids", "allowed_token_ids", "logit_bias"):
        limits.check_ids(getattr(request, name) or (), name)
    stop_token_ids = frozenset(request.stop_token_ids or ())
    if not request.ignore_eos:
        stop_token_ids |= defaults.eos_token_ids
    allowed = None if request.allowed_token_ids is None else sorted(set(request.allowed_token_ids))
    if allowed is not None:
        _check_choice(allowed, bad_words, stop_token_ids if min_tokens else frozenset())
    return SamplingParams(
        temperature=_given(request.temperature, defaults.temperature),
        top_p=_given(request.top_p, defaults.top_p),
        top_k=min(max(_given(request.top_k, defaults.top_k), 0), limits.vocab_size),
        min_p=_given(request.min_p, defaults.min_p),
        seed=None if request.seed is None else (request.seed + sequence) % 2**63,
        max_tokens=max_tokens,
        min_tokens=min(min_tokens, max_tokens),
        stop_token_ids=stop_token_ids,
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        repetition_penalty=_given(request.repetition_penalty, defaults.repetition_penalty),
        logit_bias=request.logit_bias or {},
        allowed_token_ids=allowed,
        bad_words=bad_words,
        logprobs=_at_most(request.num_logprobs, limits.vocab_size),
        prompt_logprobs=_at_most(request.num_prompt_logprobs, limits.vocab_size),
    )


async def tokenize_bad_words(tokenizer: Tokenizer, words: Sequence[str]) -> list[list[int]]:
    """The token sequences that write ``words``: each at the beginning of a text and after a space, as vLLM has them."""
    texts = [prefix + word.lstrip() for word in words for prefix in ("", " ")]
    encoded = await tokenizer.encode_all(texts, add_special_tokens=False)
    return [list(ids) for ids in dict.fromkeys(map(tuple, encoded)) if ids]


def _given(value: Number | None, default: Number) -> Number:
    return default if value is None else value


def _at_most(count: int | None, vocab_size: int) -> int | None:
    return None if count is None else min(count, vocab_size)


def _check_choice(allowed: list[int], bad_words: list[list[int]], stop_token_ids: frozenset[int]) -> None:
    """:raises ApiError: no allowed token may ever come first (400)."""
    forbidden = stop_token_ids | {word[0] for word in bad_words if len(word) == 1}
    if forbidden.issuperset(allowed):
        message = "allowed_token_ids holds only tokens that bad_words or min_tokens forbid; allow at least one more."
        raise ApiError(400, message, param="allowed_token_ids")


def _max_tokens(request: GenerationRequest, limits: ModelLimits, num_prompt_tokens: int) -> int:
    room = limits.max_model_len - num_prompt_tokens
    asked = request.answer_tokens
    if asked is None:
        return room
    if (request.min_tokens or 0) > asked:
        raise ApiError(400, f"min_tokens {request.min_tokens} is more than max_tokens {asked}.", param="min_tokens")
    # A prompt is only scored (max_tokens 0) on the way to a token, which is then dropped.
    return min(max(asked, 1), room)
