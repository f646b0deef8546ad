"""One request inside the engine."""

from __future__ import annotations

from dataclasses import dataclass, field

from serving_image.engine.kv_cache import BlockTable
from serving_image.engine.protocol import FinishReason, SamplingParams


@dataclass(eq=False, slots=True)
class Request:
    """A request's tokens and how far the cache has got with them.

    ::

        tokens   p p p p p p p p o o o
                 └── prompt ──┘ └ output
        computed ───────────►               num_computed_tokens: their keys and values are in ``blocks``
                              ◄─ uncomputed  what a step still has to run; 1 while decoding

    Everything but ``tokens``, ``num_computed_tokens`` and ``blocks`` is derived or fixed.
    """

    request_id: str
    tokens: list[int]
    num_prompt_tokens: int
    sampling: SamplingParams
    seed: int
    max_length: int
    num_computed_tokens: int = 0
    blocks: BlockTable = field(default_factory=BlockTable)

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def num_output_tokens(self) -> int:
        return self.num_tokens - self.num_prompt_tokens

    @property
    def num_uncomputed_tokens(self) -> int:
        return self.num_tokens - self.num_computed_tokens

    @property
    def stop_tokens_banned(self) -> bool:
        """Whether it is too early to stop."""
        return self.num_output_tokens < self.sampling.min_tokens

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the request is done, judged by its last output token; None if it goes on."""
        if self.num_output_tokens == 0:
            return None
        if self.tokens[-1] in self.sampling.stop_token_ids:
            return "stop"
        return "length" if self.num_tokens >= self.max_length else None
