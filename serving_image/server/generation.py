"""One HTTP request's sequences, from prompts to text events.

::

    prompts ──► AddRequest × (prompts · n) ──► engine ──► token ids ──► detokenizer ──► stop strings ──► TextEvent
                          ▲                        │                                         │            ▲
                          │                        └─ log-probabilities ──► held till their text is out ──┘
                          └───────────── abort (stop string, client gone) ◄─────────────────┘
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from serving_image.engine.protocol import AddRequest, RequestOutput, TokenLogprobs
from serving_image.server.detokenizer import IncrementalDetokenizer
from serving_image.server.errors import ApiError
from serving_image.server.logprobs import HeldTokens, ScoredToken
from serving_image.server.requests import GenerationRequest
from serving_image.server.responses import FinishReason, PromptTokensDetails, Usage
from serving_image.server.sampling import sampling_params, tokenize_bad_words
from serving_image.server.state import ServerState
from serving_image.server.stop_strings import StopStrings


@dataclass(frozen=True, slots=True)
class TextEvent:
    """More text of one sequence (``index``), or its end, or both.

    ``tokens``, if log-probabilities were asked for, are those whose text has now been given out; over all events they
    are all that ``usage`` counts, so the one that ended the sequence, and those of a stop string, come with the last.
    """

    index: int
    text: str
    finish_reason: FinishReason | None
    tokens: Sequence[ScoredToken] = ()

    @property
    def says_something(self) -> bool:
        return bool(self.text or self.finish_reason is not None or self.tokens)


@dataclass
class _Sequence:
    """One growing answer.

    :ivar only_scores: nothing is generated but the one token without which the engine does not run a prompt; it is
        dropped.
    """

    index: int
    request: AddRequest
    detokenizer: IncrementalDetokenizer
    stops: StopStrings
    include_stop: bool
    only_scores: bool
    started_at: float
    num_tokens: int = 0
    num_cached_tokens: int = 0
    first_token_at: float | None = None
    finish_reason: FinishReason | None = None
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    _num_detokenized: int = 0
    _num_given_out: int = 0
    _held: HeldTokens = field(default_factory=HeldTokens)

    def read(self, output: RequestOutput) -> TextEvent:
        """Take new tokens; ``finish_reason`` is set if they end the sequence."""
        self.num_cached_tokens = self.num_cached_tokens or output.num_cached_tokens
        if output.prompt_logprobs is not None:
            self.prompt_logprobs = output.prompt_logprobs
        if self.only_scores:
            self.finish_reason = "length" if output.finish_reason is not None else None
            return TextEvent(self.index, "", self.finish_reason)
        text = ""
        last = len(output.token_ids) - 1
        for position, token_id in enumerate(output.token_ids):
            ends = output.finish_reason == "stop" and position == last
            text += self._read_token(token_id, None if output.logprobs is None else output.logprobs[position], ends)
            if self.stops.found is not None:
                self.finish_reason = "stop"
                break
        else:
            if output.finish_reason in ("stop", "length"):
                text += self.stops.flush()
                self.finish_reason = output.finish_reason
        if self.request.sampling.logprobs is None:
            return TextEvent(self.index, text, self.finish_reason)
        self._num_given_out += len(text)
        return TextEvent(self.index, text, self.finish_reason, self._release())

    def _read_token(self, token_id: int, logprobs: TokenLogprobs | None, ends: bool) -> str:
        """The text that can be given out with one more token. A token that ``ends`` the sequence has none unless it
        was asked for."""
        self.num_tokens += 1
        text = self.detokenizer.push(token_id) if not ends or self.include_stop else ""
        if logprobs is not None:
            begin, self._num_detokenized = self._num_detokenized, self._num_detokenized + len(text)
            token = ScoredToken(token_id, begin, logprobs)
            self._held.push(token, self._num_detokenized, unfinished=self.detokenizer.unfinished)
        # As with end tokens: a stop string does not count before min_tokens.
        return self.stops.push(text) if self.num_tokens >= self.request.sampling.min_tokens else text

    def _release(self) -> list[ScoredToken]:
        if self.finish_reason is None:
            return self._held.release(self._num_given_out)
        # A stop string's own tokens begin, for the client, where its text ends.
        end = self._num_given_out
        return [token._replace(text_offset=min(token.text_offset, end)) for token in self._held.flush()]


@dataclass
class Generation:
    """The answer to one request: every prompt ``n`` times. Make one with :meth:`create`.

    :param id: unique; the engine's request ids derive from it.
    """

    id: str
    state: ServerState
    request: GenerationRequest
    prompts: Sequence[list[int]]
    _bad_words: list[list[int]]
    _sequences: dict[str, _Sequence] = field(default_factory=dict)

    @classmethod
    async def create(
        cls, id_: str, state: ServerState, request: GenerationRequest, prompts: Sequence[list[int]]
    ) -> Generation:
        """:raises ApiError: the request contradicts itself or the model (400), or the server is full (429)."""
        return cls(id_, state, request, prompts, await tokenize_bad_words(state.tokenizer, request.bad_words or ()))

    def __post_init__(self) -> None:
        n = self.request.sequences_per_prompt
        self.state.admit(len(self.prompts) * n)
        started_at = self.state.clock()
        for prompt_index, prompt in enumerate(self.prompts):
            for sequence in range(n):
                index = prompt_index * n + sequence
                add = self._add_request(index, prompt, sequence)
                self._sequences[add.request_id] = self._sequence(index, add, started_at)

    def _add_request(self, index: int, prompt: list[int], sequence: int) -> AddRequest:
        return AddRequest(
            request_id=f"{self.id}-{index}",
            prompt_token_ids=prompt,
            sampling=sampling_params(self.request, self.state.limits, self._bad_words, len(prompt), sequence),
            priority=self.request.priority or 0,
            cache_salt=self.request.cache_salt,
        )

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
            only_scores=self.request.max_tokens == 0,
            started_at=started_at,
        )

    async def events(self) -> AsyncGenerator[TextEvent]:
        """Text as it becomes certain. Closing the generator early aborts what still runs.

        :raises ApiError: the engine could not answer (500).
        """
        engine = self.state.engine
        requests = [sequence.request for sequence in self._sequences.values()]
        with engine.submit(requests, self.request.sequences_per_prompt) as outputs:
            async for output in outputs:
                sequence = self._sequences[output.request_id]
                if sequence.finish_reason is not None:
                    continue
                if output.finish_reason in ("error", "abort"):
                    raise ApiError(500, output.error or "The engine gave this request up.")
                if sequence.first_token_at is None and output.token_ids:
                    sequence.first_token_at = self.state.clock()
                event = sequence.read(output)
                if event.finish_reason == "stop" and output.finish_reason != "stop":
                    engine.stop(output.request_id)
                if event.says_something:
                    yield event

    def prompt_of(self, index: int) -> list[int]:
        """Token ids of the prompt that sequence ``index`` continues."""
        return self.prompts[index // self.request.sequences_per_prompt]

    def prompt_logprobs(self, index: int) -> list[TokenLogprobs]:
        """Scores of the prompt of sequence ``index``, but for its first token, once the sequence's first event is out;
        none if they were not asked for."""
        return self._sequences[f"{self.id}-{index}"].prompt_logprobs

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
        sequences = self._sequences.values()
        return min((s.first_token_at - s.started_at for s in sequences if s.first_token_at is not None), default=None)

    @property
    def finish_reasons(self) -> list[FinishReason]:
        return [s.finish_reason for s in self._sequences.values() if s.finish_reason is not None]
