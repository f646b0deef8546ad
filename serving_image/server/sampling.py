"""From a request's fields to the engine's sampling parameters, within what the model can do."""

from __future__ import annotations

from dataclasses import dataclass

from serving_image.engine.protocol import EngineReady, SamplingParams
from serving_image.server.errors import ApiError
from serving_image.server.model_folder import GenerationDefaults
from serving_image.server.requests import ChatCompletionRequest, GenerationFields

#: OpenAI's default for completions; a chat answer may fill the context.
COMPLETION_MAX_TOKENS = 16


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
        if max(token_ids) >= self.vocab_size:
            message = f"{param} holds the token id {max(token_ids)}; the vocabulary ends at {self.vocab_size - 1}."
            raise ApiError(400, message, param=param)


def sampling_params(
    request: GenerationFields, limits: ModelLimits, num_prompt_tokens: int, sequence: int
) -> SamplingParams:
    """Parameters of one sequence.

    :param sequence: its number within `n`; a given seed is shifted by it, or all would be equal.
    :raises ApiError: fields contradict each other or the model (400).
    """
    defaults = limits.defaults
    max_tokens, min_tokens = _max_tokens(request, limits, num_prompt_tokens), request.min_tokens or 0
    stop_token_ids = frozenset(request.stop_token_ids or ())
    if stop_token_ids and max(stop_token_ids) >= limits.vocab_size:
        message = f"stop_token_ids holds {max(stop_token_ids)}; the vocabulary ends at {limits.vocab_size - 1}."
        raise ApiError(400, message, param="stop_token_ids")
    return SamplingParams(
        temperature=defaults.temperature if request.temperature is None else request.temperature,
        top_p=defaults.top_p if request.top_p is None else request.top_p,
        top_k=defaults.top_k if request.top_k is None else min(max(request.top_k, 0), limits.vocab_size),
        seed=None if request.seed is None else (request.seed + sequence) % 2**63,
        max_tokens=max_tokens,
        min_tokens=min(min_tokens, max_tokens),
        stop_token_ids=stop_token_ids if request.ignore_eos else stop_token_ids | defaults.eos_token_ids,
    )


def _max_tokens(request: GenerationFields, limits: ModelLimits, num_prompt_tokens: int) -> int:
    room = limits.max_model_len - num_prompt_tokens
    if isinstance(request, ChatCompletionRequest):
        asked = request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens
    else:
        asked = COMPLETION_MAX_TOKENS if request.max_tokens is None else request.max_tokens
    if asked is None:
        return room
    if (request.min_tokens or 0) > asked:
        raise ApiError(400, f"min_tokens {request.min_tokens} is more than max_tokens {asked}.", param="min_tokens")
    return min(asked, room)
