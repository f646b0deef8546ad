"""What passes between the scheduler's side of a step and the device's.

::

    core     schedule 1 ─ launch 1 ─ schedule 2 ─ launch 2 ─ read 1 ─ schedule 3 ─ launch 3 ─ read 2 …
    device               └── step 1 ────────────┴── step 2 ────────────────────┴── step 3 …

A step that is launched knows nothing of the host's later decisions: everything it needs is copied into its
:class:`ScheduledRequest`, and the tokens that an earlier step has yet to sample are where the runner keeps them by the
time it runs: on a CPU in ``Request.device_tokens``, on a GPU in rows of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from serving_image.engine.block_table import BlockSpan
from serving_image.engine.protocol import TokenLogprobs
from serving_image.engine.request import Request


class ScheduledRequest(NamedTuple):
    """``num_tokens`` tokens of a request, from position ``start``, that run in a step.

    ``blocks`` are, for each group of layers, the cache blocks of the request's tokens up to the last of these, as far
    back as the first of these sees. ``samples`` says whether this reaches the request's last token, so that the step
    yields its next one.
    """

    request: Request
    start: int
    num_tokens: int
    blocks: tuple[BlockSpan, ...]
    samples: bool


class SampledToken(NamedTuple):
    """A request's next token."""

    token_id: int
    logprobs: TokenLogprobs | None


@dataclass(slots=True)
class StepResult:
    """What a step yielded.

    ``sampled`` has every request whose item ``samples`` and did not fail. ``prompt_logprobs`` are those of the prompt
    positions that the step computed, for requests that want them: entry ``i`` is about the token after position
    ``start + i``. ``failed`` requests must end, with this message for the user; no state of others was touched.
    ``seconds`` is the time the device was at it.
    """

    sampled: dict[Request, SampledToken] = field(default_factory=dict)
    prompt_logprobs: dict[Request, list[TokenLogprobs]] = field(default_factory=dict)
    failed: dict[Request, str] = field(default_factory=dict)
    seconds: float = 0.0


class PendingStep(Protocol):
    """A step that was launched and may still run."""

    def wait(self, seconds: float, /) -> bool:
        """Wait at most this long for the step's end; whether it has ended."""

    def result(self) -> StepResult:
        """Wait for the step and read it. Raises only if the device is lost for good."""


class StepRunner(Protocol):
    """What computes steps, in the order of their launching: :class:`serving_image.runtime.runner.Runner` on a CPU,
    :class:`serving_image.runtime.gpu.gpu_runner.GPURunner` on a GPU."""

    @property
    def vocab_size(self) -> int: ...

    def launch(self, scheduled: Sequence[ScheduledRequest], /) -> PendingStep:
        """Start computing and return at once."""

    def forget(self, requests: Sequence[Request], /) -> None:
        """Drop what is kept for requests that have ended; a step that was launched may still run some."""
