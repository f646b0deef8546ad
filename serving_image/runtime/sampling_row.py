"""What the sampler knows of one request at one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from serving_image.engine.protocol import SamplingParams

_MIN_TEMPERATURE = 1e-5


@dataclass(frozen=True, slots=True)
class SamplingRow:
    """One request at one step: ``tokens`` are its prompt and its output so far, borrowed for the length of a call."""

    params: SamplingParams
    seed: int
    tokens: Sequence[int]
    num_prompt_tokens: int

    @property
    def num_output_tokens(self) -> int:
        return len(self.tokens) - self.num_prompt_tokens

    @property
    def greedy(self) -> bool:
        """Whether the best token is taken; below 1e-5, dividing by the temperature could overflow, so as in vLLM
        it counts as 0."""
        return self.params.temperature < _MIN_TEMPERATURE
