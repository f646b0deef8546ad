"""One request inside the engine."""

from __future__ import annotations

from dataclasses import dataclass, field

from serving_image.engine.block_table import BlockTable
from serving_image.engine.protocol import FinishReason, SamplingParams, TokenLogprobs


@dataclass(eq=False, slots=True)
class Request:
    """A request's tokens and how far the cache has got with them.

    ::

        tokens   p p p p p p p p o o o ? ?
                 └── prompt ──┘ └ output └ pending: sampled by a launched step, not read back yet
        computed ───────────────►          num_computed_tokens: their keys and values are, or a launched step puts them,
                                           in ``blocks``
                                  ◄─────   uncomputed: what a step still has to run; 1 while decoding

    Everything but ``tokens``, ``num_pending``, ``num_computed_tokens``, ``num_cached_tokens``, ``blocks``,
    ``prompt_logprobs`` (as far as the prompt has been read back) and ``queue_seconds`` (how long it waited until it was
    first scheduled; None before) is derived or fixed. ``order`` counts arrivals; the scheduler gives it.
    ``device_tokens`` belongs to a CPU's runner alone: the same tokens, but ahead by those that are pending.
    """

    request_id: str
    tokens: list[int]
    num_prompt_tokens: int
    sampling: SamplingParams
    seed: int
    max_length: int
    priority: int = 0
    cache_salt: str | None = None
    arrived_at: float = 0.0
    num_pending: int = 0
    num_computed_tokens: int = 0
    num_cached_tokens: int = 0
    order: int = 0
    queue_seconds: float | None = None
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    blocks: BlockTable = field(init=False)
    device_tokens: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.blocks = BlockTable(self.cache_salt)
        self.device_tokens = list(self.tokens)

    @property
    def rank(self) -> tuple[int, int]:
        """Whose turn comes first: the lower priority value, then the older request."""
        return self.priority, self.order

    @property
    def num_tokens(self) -> int:
        """Tokens there are, counting those that are pending."""
        return len(self.tokens) + self.num_pending

    @property
    def num_output_tokens(self) -> int:
        """Generated tokens that have been read back."""
        return len(self.tokens) - self.num_prompt_tokens

    @property
    def num_uncomputed_tokens(self) -> int:
        """Tokens a step still has to run; 0 once the longest answer is there or pending."""
        return 0 if self.num_tokens >= self.max_length else self.num_tokens - self.num_computed_tokens

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the request is done, judged by its last token read back; None if it goes on."""
        if self.num_output_tokens == 0:
            return None
        if self.tokens[-1] in self.sampling.stop_token_ids:
            return "stop"
        return "length" if len(self.tokens) >= self.max_length else None
