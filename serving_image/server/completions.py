"""``POST /v1/completions``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from serving_image.server.access_log import facts_of
from serving_image.server.connection import EventStream, read_body, unless_gone
from serving_image.server.generation import Generation, TextEvent
from serving_image.server.logprobs import (
    CompletionLogprobs,
    ScoredToken,
    completion_logprobs,
    prompt_logprobs,
    scored_prompt,
)
from serving_image.server.requests import CompletionRequest, parse_body
from serving_image.server.responses import ChunkEncoder, Completion, CompletionChoice, Usage, encode
from serving_image.server.state import ServerState


async def create_completion(http: Request) -> Response:
    state: ServerState = http.app.state.server
    request = parse_body(await read_body(http), CompletionRequest)
    state.check_model(request.model)
    prompts = await _tokenize(state, request)
    generation = await Generation.create(f"cmpl-{state.new_id()}", state, request, prompts)
    facts_of(http.scope).generation = generation
    answer = _Answer(generation, request, int(state.now()), _echoed(state, request, prompts))
    if request.stream:
        return await EventStream.start(http.receive, answer.chunks())
    body = await unless_gone(http.receive, answer.whole())
    return Response(encode(body), media_type="application/json")


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

    def __init__(self, generation: Generation, request: CompletionRequest, created: int, echoed: list[str]) -> None:
        self._generation = generation
        self._request = request
        self._created = created
        self._echoed = echoed
        self._tokenizer = generation.state.tokenizer

    async def whole(self) -> Completion:
        choices: list[list[TextEvent]] = [[] for _ in self._echoed]
        async with aclosing(self._generation.events()) as events:
            async for event in events:
                choices[event.index].append(event)
        return self._body([self._choice(index, said) for index, said in enumerate(choices)], self._generation.usage)

    def _choice(self, index: int, said: list[TextEvent]) -> CompletionChoice:
        tokens = [token for event in said for token in event.tokens]
        most = self._request.prompt_logprobs
        return CompletionChoice(
            index=index,
            text=self._echoed[index] + "".join(event.text for event in said),
            finish_reason=said[-1].finish_reason,
            logprobs=self._logprobs(index, tokens, begins=True),
            prompt_logprobs=UNSET
            if most is None
            else prompt_logprobs(self._tokenizer, self._generation.prompt_logprobs(index), most),
        )

    async def chunks(self) -> AsyncGenerator[bytes]:
        encoder = ChunkEncoder(self._body([], None if self._request.include_usage else UNSET))
        silent = set(range(len(self._echoed)))
        async with aclosing(self._generation.events()) as events:
            async for event in events:
                index, text = event.index, event.text
                begins = index in silent
                if begins:
                    silent.discard(index)
                    text = self._echoed[index] + text
                logprobs = self._logprobs(index, event.tokens, begins=begins)
                yield encoder.event(CompletionChoice(index, text, event.finish_reason, logprobs))
        if self._request.include_usage:
            yield encoder.usage(self._generation.usage)

    def _logprobs(self, index: int, tokens: Sequence[ScoredToken], *, begins: bool) -> CompletionLogprobs | None:
        """Those of a choice's ``tokens``; where its text ``begins``, after those of its echoed prompt."""
        most = self._request.logprobs
        if most is None:
            return None
        length = len(self._echoed[index])
        tokens = [token._replace(text_offset=token.text_offset + length) for token in tokens]
        if begins and self._request.echo:
            prompt, scored = self._generation.prompt_of(index), self._generation.prompt_logprobs(index)
            tokens = scored_prompt(self._tokenizer, prompt, scored, length) + tokens
        return completion_logprobs(self._tokenizer, tokens, most)

    def _body(self, choices: list[CompletionChoice], usage: Usage | UnsetType | None) -> Completion:
        model = self._generation.state.options.served_model_name
        return Completion(id=self._generation.id, created=self._created, model=model, choices=choices, usage=usage)
