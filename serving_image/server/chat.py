"""``POST /v1/chat/completions``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from msgspec import UNSET, structs
from starlette.requests import Request
from starlette.responses import Response

from serving_image.server.access_log import facts_of
from serving_image.server.chat_template import HOW_TO_GIVE
from serving_image.server.connection import EventStream, read_body, unless_gone
from serving_image.server.errors import ApiError
from serving_image.server.generation import Generation, TextEvent
from serving_image.server.logprobs import ChatLogprobs, ScoredToken, chat_logprobs, prompt_logprobs
from serving_image.server.requests import ChatCompletionRequest, ChatMessage, parse_body
from serving_image.server.responses import (
    AssistantMessage,
    ChatChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChunkChoice,
    ChunkEncoder,
    Delta,
    encode,
)
from serving_image.server.state import ServerState


async def create_chat_completion(http: Request) -> Response:
    state: ServerState = http.app.state.server
    request = parse_body(await read_body(http), ChatCompletionRequest)
    state.check_model(request.model)
    prompt = await tokenize_chat(state, request.messages, add_generation_prompt=True)
    state.limits.check_prompt(prompt, "messages")
    request = _ending_with_the_turn(state, request)
    generation = await Generation.create(f"chatcmpl-{state.new_id()}", state, request, [prompt])
    facts_of(http.scope).generation = generation
    answer = _Answer(generation, request, int(state.now()))
    if request.stream:
        return await EventStream.start(http.receive, answer.chunks())
    body = await unless_gone(http.receive, answer.whole())
    return Response(encode(body), media_type="application/json")


async def tokenize_chat(state: ServerState, messages: list[ChatMessage], *, add_generation_prompt: bool) -> list[int]:
    """The prompt of a conversation. The template writes the special tokens itself, so none are added.

    :raises ApiError: the model has no chat template, or it refuses the messages (400).
    """
    if state.chat_template is None:
        message = (
            "This model has no chat template, so it cannot chat. Use /v1/completions, or start the server with "
            f"{HOW_TO_GIVE}."
        )
        raise ApiError(400, message, param="messages", code="no_chat_template")
    text = state.chat_template.render(
        [message.for_template() for message in messages], add_generation_prompt=add_generation_prompt
    )
    return await state.tokenizer.encode(text, add_special_tokens=False)


def _ending_with_the_turn(state: ServerState, request: ChatCompletionRequest) -> ChatCompletionRequest:
    """``request``, to end also with what the template says ends an answer: a token where the tokenizer has one."""
    if state.chat_template is None or not state.chat_template.stop_strings or request.ignore_eos:
        return request
    tokens = {text: state.tokenizer.added_token_id(text) for text in state.chat_template.stop_strings}
    ids = [id_ for id_ in tokens.values() if id_ is not None and id_ < state.limits.vocab_size]
    return structs.replace(
        request,
        stop=[*request.stop_strings, *(text for text, id_ in tokens.items() if id_ is None)],
        stop_token_ids=[*(request.stop_token_ids or ()), *ids],
    )


class _Answer:
    """A generation in OpenAI's chat shapes."""

    def __init__(self, generation: Generation, request: ChatCompletionRequest, created: int) -> None:
        self._generation = generation
        self._request = request
        self._created = created
        self._tokenizer = generation.state.tokenizer

    async def whole(self) -> ChatCompletion:
        choices: list[list[TextEvent]] = [[] for _ in range(self._request.sequences_per_prompt)]
        async with aclosing(self._generation.events()) as events:
            async for event in events:
                choices[event.index].append(event)
        most = self._request.prompt_logprobs
        return ChatCompletion(
            id=self._generation.id,
            created=self._created,
            model=self._generation.state.options.served_model_name,
            choices=[self._choice(index, said) for index, said in enumerate(choices)],
            usage=self._generation.usage,
            prompt_logprobs=UNSET
            if most is None
            else prompt_logprobs(self._tokenizer, self._generation.prompt_logprobs(0), most),
        )

    def _choice(self, index: int, said: list[TextEvent]) -> ChatChoice:
        message = AssistantMessage("".join(event.text for event in said))
        logprobs = self._logprobs([token for event in said for token in event.tokens])
        return ChatChoice(index, message, said[-1].finish_reason, logprobs)

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Per choice: its role, then its text as it comes, the last with its finish reason; then the usage if it was
        asked for."""
        encoder = ChunkEncoder(self._empty())
        silent = set(range(self._request.sequences_per_prompt))
        async with aclosing(self._generation.events()) as events:
            async for event in events:
                if event.index in silent:
                    silent.discard(event.index)
                    yield encoder.event(ChunkChoice(event.index, Delta("assistant", ""), None))
                delta = Delta(content=event.text) if event.text else Delta()
                logprobs = self._logprobs(event.tokens)
                yield encoder.event(ChunkChoice(event.index, delta, event.finish_reason, logprobs))
        if self._request.include_usage:
            yield encoder.usage(self._generation.usage)

    def _logprobs(self, tokens: Sequence[ScoredToken]) -> ChatLogprobs | None:
        most = self._request.num_logprobs
        return None if most is None else chat_logprobs(self._tokenizer, tokens, most)

    def _empty(self) -> ChatCompletionChunk:
        """A chunk without choices."""
        return ChatCompletionChunk(
            id=self._generation.id,
            created=self._created,
            model=self._generation.state.options.served_model_name,
            choices=[],
            usage=None if self._request.include_usage else UNSET,
        )
