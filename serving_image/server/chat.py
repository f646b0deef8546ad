"""``POST /v1/chat/completions``."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from serving_image.server.access_log import facts_of
from serving_image.server.connection import EventStream, read_body, unless_gone
from serving_image.server.errors import ApiError
from serving_image.server.generation import Generation
from serving_image.server.requests import ChatCompletionRequest, ChatMessage, parse_body
from serving_image.server.responses import (
    AssistantMessage,
    ChatChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChunkChoice,
    Delta,
    FinishReason,
    Usage,
)
from serving_image.server.state import ServerState


async def create_chat_completion(http: Request) -> Response:
    state: ServerState = http.app.state.server
    request = parse_body(await read_body(http), ChatCompletionRequest)
    state.check_model(request.model)
    prompt = await tokenize_chat(state, request.messages, add_generation_prompt=True)
    state.limits.check_prompt(prompt, "messages")
    generation = Generation(f"chatcmpl-{state.new_id()}", state, request, [prompt])
    facts_of(http.scope).generation = generation
    answer = _Answer(generation, int(state.now()))
    if request.stream:
        return await EventStream.start(http.receive, answer.chunks())
    body = await unless_gone(http.receive, answer.whole())
    return Response(msgspec.json.encode(body), media_type="application/json")


async def tokenize_chat(state: ServerState, messages: list[ChatMessage], *, add_generation_prompt: bool) -> list[int]:
    """The prompt of a conversation. The template writes the special tokens itself, so none are added.

    :raises ApiError: the model has no chat template, or it refuses the messages (400).
    """
    if state.chat_template is None:
        message = (
            "This model has no chat template, so it cannot chat. Use /v1/completions, or start the server with "
            "--chat-template FILE."
        )
        raise ApiError(400, message, param="messages", code="no_chat_template")
    text = state.chat_template.render(
        [message.for_template() for message in messages], add_generation_prompt=add_generation_prompt
    )
    return await state.tokenizer.encode(text, add_special_tokens=False)


class _Answer:
    """A generation in OpenAI's chat shapes."""

    def __init__(self, generation: Generation, created: int) -> None:
        self._generation = generation
        self._created = created

    async def whole(self) -> ChatCompletion:
        texts: dict[int, str] = {}
        reasons: dict[int, FinishReason] = {}
        async with aclosing(self._generation.events()) as events:
            async for event in events:
                texts[event.index] = texts.get(event.index, "") + event.text
                if event.finish_reason is not None:
                    reasons[event.index] = event.finish_reason
        return ChatCompletion(
            id=self._generation.id,
            created=self._created,
            model=self._generation.state.options.served_model_name,
            choices=[ChatChoice(i, AssistantMessage(texts[i]), reasons[i]) for i in sorted(texts)],
            usage=self._generation.usage,
        )

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Per choice: its role, its text as it comes, its finish reason; then the usage if it was asked for."""
        include_usage = self._generation.request.include_usage
        usage = None if include_usage else UNSET
        started: set[int] = set()
        async with aclosing(self._generation.events()) as events:
            async for event in events:
                if event.index not in started:
                    started.add(event.index)
                    yield self._chunk([ChunkChoice(event.index, Delta("assistant", ""), None)], usage)
                if event.text:
                    yield self._chunk([ChunkChoice(event.index, Delta(content=event.text), None)], usage)
                if event.finish_reason is not None:
                    yield self._chunk([ChunkChoice(event.index, Delta(), event.finish_reason)], usage)
        if include_usage:
            yield self._chunk([], self._generation.usage)

    def _chunk(self, choices: list[ChunkChoice], usage: Usage | msgspec.UnsetType | None) -> bytes:
        chunk = ChatCompletionChunk(
            id=self._generation.id,
            created=self._created,
            model=self._generation.state.options.served_model_name,
            choices=choices,
            usage=usage,
        )
        return msgspec.json.encode(chunk)
