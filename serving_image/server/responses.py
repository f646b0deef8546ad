"""Response bodies of the OpenAI routes; field names and order are OpenAI's."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType
from msgspec.json import Encoder
from msgspec.structs import replace

from serving_image.server.logprobs import ChatLogprobs, CompletionLogprobs, PromptLogprobs

FinishReason = Literal["stop", "length"]
encode = Encoder().encode


class PromptTokensDetails(Struct, frozen=True):
    cached_tokens: int


class Usage(Struct, frozen=True):
    """Token counts; the token that ended a sequence is counted."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class CompletionChoice(Struct, frozen=True):
    """``prompt_logprobs`` is absent where it was not asked for."""

    index: int
    text: str
    finish_reason: FinishReason | None
    logprobs: CompletionLogprobs | None = None
    prompt_logprobs: PromptLogprobs | UnsetType = UNSET


class Completion(Struct, frozen=True, kw_only=True):
    """A completion, and each chunk of a streamed one. ``usage`` is absent from chunks that were not asked for it."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | UnsetType | None = UNSET


class AssistantMessage(Struct, frozen=True):
    content: str
    role: Literal["assistant"] = "assistant"
    refusal: None = None


class ChatChoice(Struct, frozen=True):
    index: int
    message: AssistantMessage
    finish_reason: FinishReason | None
    logprobs: ChatLogprobs | None = None


class ChatCompletion(Struct, frozen=True, kw_only=True):
    """``prompt_logprobs``, as in vLLM beside the choices, is absent where it was not asked for."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    prompt_logprobs: PromptLogprobs | UnsetType = UNSET


class Delta(Struct, frozen=True):
    """What a chunk adds: the role first, then text, nothing in the last."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET


class ChunkChoice(Struct, frozen=True):
    index: int
    delta: Delta
    finish_reason: FinishReason | None
    logprobs: ChatLogprobs | None = None


class ChatCompletionChunk(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | UnsetType | None = UNSET


class ChunkEncoder:
    """Server-sent events of one stream, of which only the choices and the usage differ.

    :param body: any chunk of the stream with no choices; its ``usage`` is every chunk's but the last's.
    """

    def __init__(self, body: Completion | ChatCompletionChunk) -> None:
        self._body = body
        # No string in JSON can hold these bytes: its quotation marks would be escaped.
        head, _, tail = encode(body).partition(b'"choices":[]')
        self._head = b"data: " + head + b'"choices":['
        self._tail = b"]" + tail + b"\n\n"

    def event(self, choice: CompletionChoice | ChunkChoice) -> bytes:
        return b"".join((self._head, encode(choice), self._tail))

    def usage(self, usage: Usage) -> bytes:
        """The last event of a stream that was asked for its usage."""
        return b"data: " + encode(replace(self._body, usage=usage)) + b"\n\n"


class Model(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "slipway"
    root: str
    parent: None = None
    max_model_len: int


class ModelList(Struct, frozen=True):
    data: list[Model]
    object: Literal["list"] = "list"


class Tokenized(Struct, frozen=True):
    count: int
    max_model_len: int
    tokens: list[int]


class Detokenized(Struct, frozen=True):
    prompt: str
