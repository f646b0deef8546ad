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
    """How to choose tokens; names and defaults follow OpenAI and vLLM. The server has validated every field.

    ``temperature`` 0 means greedy. ``top_k`` 0 means off. ``seed`` None means a fresh random stream per request.
    ``max_tokens`` counts generated tokens; the server has already capped it by the context.
    ``stop_token_ids`` includes the model's end tokens unless the request said ``ignore_eos``.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    max_tokens: int = 16
    min_tokens: int = 0
    stop_token_ids: frozenset[int] = frozenset()


class AddRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="add"):
    """Start generating. ``request_id`` is unique among live requests; ``prompt_token_ids`` is never empty."""

    request_id: str
    prompt_token_ids: list[int]
    sampling: SamplingParams


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
    """Sent once, when the weights are loaded and the KV cache is sized."""

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


class RequestOutput(msgspec.Struct, frozen=True, omit_defaults=True):
    """New tokens of one request. ``finish_reason`` is set on the last message of a request and only there.

    ``stop`` means a token of ``stop_token_ids`` was sampled; that token is the last of ``token_ids``.
    ``error`` carries a sentence for the user in ``error``.
    """

    request_id: str
    token_ids: list[int]
    finish_reason: FinishReason | None = None
    error: str | None = None
    num_cached_tokens: int = 0


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """The state after a step. Invariant when idle: free blocks == total blocks."""

    step: int
    num_running: int
    num_waiting: int
    num_free_blocks: int
    num_total_blocks: int
    num_preemptions: int
    batch_tokens: int
    step_seconds: float


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
