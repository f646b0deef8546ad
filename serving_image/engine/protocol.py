"""What the server and the engine process say to each other: msgpack structs over two ZMQ sockets.

::

    server  ── PUSH ──►  PULL  engine      EngineInput  (AddRequest | AbortRequests | Drain)
    server  ◄── PULL  ── PUSH  engine      EngineOutput (EngineReady | StepOutput | EngineFailed)

Token ids only: text lives in the server, tensors live in the engine. One struct per ZMQ message, encoded with
:data:`encode`. Unknown fields are ignored, so either side may be newer.
"""

from __future__ import annotations

from typing import Literal

import msgspec

FinishReason = Literal["stop", "length", "abort", "error"]


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How to choose tokens; names and semantics follow OpenAI and vLLM. The server has validated every field.

    ``temperature`` 0 means greedy. ``top_k`` 0 and ``min_p`` 0 mean off. ``seed`` None means a fresh random stream per
    request. ``max_tokens`` counts generated tokens; the server has already capped it by the context.
    ``stop_token_ids`` includes the model's end tokens unless the request said ``ignore_eos``. Penalties of 0
    (presence, frequency) and 1 (repetition) mean off. ``logit_bias`` maps token ids to what is added to their scores.
    ``allowed_token_ids`` None means all; ``bad_words`` are token sequences that must not be completed. ``logprobs`` is
    how many of the best tokens to report beside the chosen one; None reports nothing; ``prompt_logprobs`` does the same
    for the prompt's tokens.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    max_tokens: int = 16
    min_tokens: int = 0
    stop_token_ids: frozenset[int] = frozenset()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = {}
    allowed_token_ids: list[int] | None = None
    bad_words: list[list[int]] = []
    logprobs: int | None = None
    prompt_logprobs: int | None = None


class AddRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="add"):
    """Start generating. ``request_id`` is unique among live requests; ``prompt_token_ids`` is never empty.

    Requests of a lower ``priority`` are served first, those of equal priority in the order of their coming. Only
    requests with the same ``cache_salt`` share cached prefixes.
    """

    request_id: str
    prompt_token_ids: list[int]
    sampling: SamplingParams
    priority: int = 0
    cache_salt: str | None = None


class AbortRequests(msgspec.Struct, frozen=True, tag="abort"):
    """Forget these requests and free their blocks. Unknown ids are ignored: they may have just finished."""

    request_ids: list[str]


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Finish what is running, then exit 0."""


EngineInput = AddRequest | AbortRequests | Drain


class BootPhase(msgspec.Struct, frozen=True):
    """One line of the boot timeline."""

    name: str
    seconds: float


class EngineReady(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """Sent once, when the weights are loaded and the KV cache is sized.

    An engine that has work but ends no step for ``stall_timeout`` seconds ends itself.
    """

    device: str
    dtype: str
    parameters: int
    vocab_size: int
    max_model_len: int
    max_num_seqs: int
    block_size: int
    num_blocks: int
    kv_cache_bytes: int
    boot: list[BootPhase]
    stall_timeout: float = 120.0


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Log-probabilities at one position, of the model's raw scores (before temperature, penalties and truncation).

    ``rank`` of the token is 1 for the most probable one. ``top_ids`` are the best tokens in falling order, as many as
    were asked for, and ``top_logprobs`` theirs; the token itself is among them only if it is that good.
    """

    token_id: int
    logprob: float
    rank: int
    top_ids: list[int]
    top_logprobs: list[float]


class RequestOutput(msgspec.Struct, frozen=True, omit_defaults=True):
    """New tokens of one request. ``finish_reason`` is set on the last message of a request and only there.

    ``stop`` means a token of ``stop_token_ids`` was sampled; that token is the last of ``token_ids``.
    ``error`` carries a sentence for the user in ``error``. ``logprobs`` has one entry per token if they were asked
    for; ``prompt_logprobs``, one per prompt token but the first, comes once, with the first token or before it.
    On the first message, ``num_cached_tokens`` counts prompt tokens found in the prefix cache and ``queue_seconds`` is
    the wait from arrival to first being scheduled.
    """

    request_id: str
    token_ids: list[int]
    finish_reason: FinishReason | None = None
    error: str | None = None
    num_cached_tokens: int = 0
    logprobs: list[TokenLogprobs] | None = None
    prompt_logprobs: list[TokenLogprobs] | None = None
    queue_seconds: float = 0.0


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """The state after a step. Invariant when idle: free blocks (those that hold cached prefixes count as free) == total
    blocks.

    ``num_preemptions`` and the ``prefix_cache_*`` fields count since the start: preempted requests, prompt tokens
    looked up in the prefix cache and those found there. ``queue_seconds`` are the waits, from arrival to first being
    scheduled, of the requests that first ran in this step. ``seconds_without_progress`` is how long there has been work
    but no step has been read; 0 when idle.
    """

    step: int
    num_running: int
    num_waiting: int
    num_free_blocks: int
    num_total_blocks: int
    num_preemptions: int
    batch_tokens: int
    step_seconds: float
    prefix_cache_queries: int = 0
    prefix_cache_hits: int = 0
    queue_seconds: list[float] = []
    seconds_without_progress: float = 0.0


class StepOutput(msgspec.Struct, frozen=True, tag="step"):
    """What one step produced. Also sent without outputs, at least once a second, as the engine's heartbeat."""

    outputs: list[RequestOutput]
    stats: EngineStats


class EngineFailed(msgspec.Struct, frozen=True, tag="failed"):
    """The engine cannot start or go on. ``message`` says what is wrong, ``next_step`` what would work."""

    message: str
    next_step: str


EngineOutput = EngineReady | StepOutput | EngineFailed

encode = msgspec.msgpack.Encoder().encode
decode_input = msgspec.msgpack.Decoder(EngineInput).decode
decode_output = msgspec.msgpack.Decoder(EngineOutput).decode
