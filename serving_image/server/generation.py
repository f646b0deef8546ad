"""One HTTP request's sequences, from prompts to text events.

::

    prompts ──► AddRequest × (prompts · n) ──► engine ──► token ids ──► detokenizer ──► stop strings ──► TextEvent
                          ▲                                                                  │
                          └───────────── abort (stop string, client gone) ◄─────────────────┘
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from serving_image.engine.protocol import AddRequest, RequestOutput
from serving_image.server.detokenizer import IncrementalDetokenizer
from serving_image.server.errors import ApiError
from serving_image.server.requests import GenerationFields
from serving_image.server.responses import FinishReason, PromptTokensDetails, Usage
from serving_image.server.sampling import sampling_params
from serving_image.server.state import ServerState
from serving_image.server.stop_strings import StopStrings


@dataclass(frozen=True)
class TextEvent:
    """More text of one sequence (``index``), or its end, or both."""

    index: int
    text: str
    finish_reason: FinishReason | None


@dataclass
class _Sequence:
    """One growing answer."""

    index: int
    request: AddRequest
    detokenizer: IncrementalDetokenizer
    stops: StopStrings
    include_stop: bool
    started_at: float
    num_tokens: int = 0
    num_cached_tokens: int = 0
    heard_at: float | None = None
    finish_reason: FinishReason | None = None

    def read(self, output: RequestOutput) -> TextEvent:
        """Take new tokens; ``finish_reason`` is set if they end the sequence."""
        text = ""
        for position, token_id in enumerate(output.token_ids, start=1):
            self.num_tokens += 1
            ends = output.finish_reason == "stop" and position == len(output.token_ids)
            if ends and not self.include_stop:
                continue
            text += self._read_text(self.detokenizer.push(token_id))
            if self.stops.found is not None:
                self.finish_reason = "stop"
                return TextEvent(self.index, text, "stop")
        if output.finish_reason in ("stop", "length"):
            text += self.stops.flush()
            self.finish_reason = output.finish_reason
        return TextEvent(self.index, text, self.finish_reason)

    def _read_text(self, text: str) -> str:
        # As with end tokens: a stop string does not count before min_tokens.
        if self.num_tokens < self.request.sampling.min_tokens:
            return text
        return self.stops.push(text)


@dataclass
class Generation:
    """The answer to one request: every prompt ``n`` times.

    :param id: unique; the engine's request ids derive from it.
    """

    id: str
    state: ServerState
    request: GenerationFields
    prompts: Sequence[list[int]]
    _sequences: dict[str, _Sequence] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """:raises ApiError: the request contradicts itself or the model (400), or the server is full (429)."""
        n = self.request.sequences_per_prompt
        self.state.admit(len(self.prompts) * n)
        started_at = self.state.clock()
        for prompt_index, prompt in enumerate(self.prompts):
            for sequence in range(n):
                index = prompt_index * n + sequence
                sampling = sampling_params(self.request, self.state.limits, len(prompt), sequence)
                add = AddRequest(request_id=f"{self.id}-{index}", prompt_token_ids=prompt, sampling=sampling)
                self._sequences[add.request_id] = self._sequence(index, add, started_at)

    def _sequence(self, index: int, add: AddRequest, started_at: float) -> _Sequence:
        include_stop = bool(self.request.include_stop_str_in_output)
        skip_special_tokens = self.request.skip_special_tokens is not False
        return _Sequence(
            index=index,
            request=add,
            detokenizer=IncrementalDetokenizer(
                self.state.tokenizer, add.prompt_token_ids, skip_special_tokens=skip_special_tokens
            ),
            stops=StopStrings(self.request.stop_strings, include_in_output=include_stop),
            include_stop=include_stop,
            started_at=started_at,
        )

    async def events(self) -> AsyncGenerator[TextEvent]:
        """Text as it becomes certain. Closing the generator early aborts what still runs.

        :raises ApiError: the engine could not answer (500).
        """
        engine, metrics = self.state.engine, self.state.metrics
        try:
            with engine.submit([sequence.request for sequence in self._sequences.values()]) as outputs:
                async for output in outputs:
                    sequence = self._sequences[output.request_id]
                    if sequence.finish_reason is not None:
                        continue
                    if output.finish_reason in ("error", "abort"):
                        metrics.finished("error", self.state.clock() - sequence.started_at)
                        raise ApiError(500, output.error or "The engine gave this request up.")
                    self._measure(sequence, output)
                    event = sequence.read(output)
                    if event.finish_reason is not None:
                        metrics.finished(event.finish_reason, self.state.clock() - sequence.started_at)
                        if output.finish_reason is None:
                            engine.abort(output.request_id)
                    if event.text or event.finish_reason is not None:
                        yield event
        except (GeneratorExit, asyncio.CancelledError):
            metrics.aborted(sum(sequence.finish_reason is None for sequence in self._sequences.values()))
            raise

    def _measure(self, sequence: _Sequence, output: RequestOutput) -> None:
        now, metrics = self.state.clock(), self.state.metrics
        if sequence.heard_at is None:
            sequence.num_cached_tokens = output.num_cached_tokens
            metrics.first_token(len(sequence.request.prompt_token_ids), now - sequence.started_at)
        else:
            metrics.next_token(now - sequence.heard_at)
        metrics.generated(len(output.token_ids))
        sequence.heard_at = now

    @property
    def usage(self) -> Usage:
        """What has been used so far; a prompt counts once, however many sequences continue it."""
        prompt_tokens = sum(len(prompt) for prompt in self.prompts)
        completion_tokens = sum(sequence.num_tokens for sequence in self._sequences.values())
        n = self.request.sequences_per_prompt
        cached = sum(s.num_cached_tokens for s in self._sequences.values() if s.index % n == 0)
        details = PromptTokensDetails(cached_tokens=cached)
        return Usage(prompt_tokens, completion_tokens, prompt_tokens + completion_tokens, details)

    @property
    def seconds_to_first_token(self) -> float | None:
        """From the request's acceptance to its first token; None before that."""
        heard = [s.heard_at - s.started_at for s in self._sequences.values() if s.heard_at is not None]
        return min(heard, default=None)

    @property
    def finish_reasons(self) -> list[FinishReason]:
        return [s.finish_reason for s in self._sequences.values() if s.finish_reason is not None]
