"""``POST /v1/completions``."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from serving_image.server.access_log import facts_of
from serving_image.server.connection import EventStream, read_body, unless_gone
from serving_image.server.generation import Generation
from serving_image.server.requests import CompletionRequest, parse_body
from serving_image.server.responses import Completion, CompletionChoice, FinishReason, Usage
from serving_image.server.state import ServerState


async def create_completion(http: Request) -> Response:
    state: ServerState = http.app.state.server
    request = parse_body(await read_body(http), CompletionRequest)
    state.check_model(request.model)
    prompts = await _tokenize(state, request)
    generation = Generation(f"cmpl-{state.new_id()}", state, request, prompts)
    facts_of(http.scope).generation = generation
    answer = _Answer(generation, int(state.now()), _echoed(state, request, prompts))
    if request.stream:
        return await EventStream.start(http.receive, answer.chunks())
    body = await unless_gone(http.receive, answer.whole())
    return Response(msgspec.json.encode(body), media_type="application/json")


async def _tokenize(state: ServerState, request: CompletionRequest) -> list[list[int]]:
    prompts = [
        await state.tokenizer.encode(prompt, add_special_tokens=True) if isinstance(prompt, str) else prompt
        for prompt in request.prompts()
    ]
    for prompt in prompts:
        state.limits.check_prompt(prompt, "prompt")
    return prompts


def _echoed(state: ServerState, request: CompletionRequest, prompts: list[list[int]]) -> list[str]:
    """What stands before each choice's own text: the prompt if `echo` asks for it."""
    if not request.echo:
        return [""] * len(prompts) * request.sequences_per_prompt
    texts = [
        prompt if isinstance(prompt, str) else state.tokenizer.decode(prompt, skip_special_tokens=True)
        for prompt in request.prompts()
    ]
    return [text for text in texts for _ in range(request.sequences_per_prompt)]


class _Answer:
    """A generation in OpenAI's completion shapes."""

    def __init__(self, generation: Generation, created: int, echoed: list[str]) -> None:
        self._generation = generation
        self._created = created
        self._echoed = echoed

    async def whole(self) -> Completion:
        texts = list(self._echoed)
        reasons: dict[int, FinishReason] = {}
        async with aclosing(self._generation.events()) as events:
            async for event in events:
                texts[event.index] += event.text
                if event.finish_reason is not None:
                    reasons[event.index] = event.finish_reason
        choices = [CompletionChoice(index, text, reasons[index]) for index, text in enumerate(texts)]
        return self._body(choices, usage=self._generation.usage)

    async def chunks(self) -> AsyncGenerator[bytes]:
        include_usage = self._generation.request.include_usage
        usage = None if include_usage else msgspec.UNSET
        echoed = dict(enumerate(self._echoed))
        async with aclosing(self._generation.events()) as events:
            async for event in events:
                text = echoed.pop(event.index, "") + event.text
                choice = CompletionChoice(event.index, text, event.finish_reason)
                yield msgspec.json.encode(self._body([choice], usage=usage))
        if include_usage:
            yield msgspec.json.encode(self._body([], usage=self._generation.usage))

    def _body(self, choices: list[CompletionChoice], usage: Usage | msgspec.UnsetType | None) -> Completion:
        model = self._generation.state.options.served_model_name
        return Completion(id=self._generation.id, created=self._created, model=model, choices=choices, usage=usage)
