"""What is asked of an engine: prompts of random token ids and how many tokens to answer with."""

from __future__ import annotations

import random
from typing import NamedTuple

from llama_246m import CONFIG

#: Requests of the burst, and the bounds of their lengths.
BURST = 64
BURST_PROMPTS = (32, 256)
BURST_OUTPUTS = (32, 160)


class Job(NamedTuple):
    """One request: greedy, never stopped by an end token."""

    prompt: list[int]
    max_tokens: int


class Prompts:
    """Random prompts; the same ``key`` gives the same ones, and no two keys share one."""

    def __init__(self, key: str) -> None:
        self._random = random.Random(key)

    def tokens(self, count: int) -> list[int]:
        """``count`` ids; the first two, which may be special tokens, are left out."""
        return self._random.choices(range(2, CONFIG["vocab_size"]), k=count)

    def jobs(self, count: int, prompt_tokens: int, max_tokens: int) -> list[Job]:
        return [Job(self.tokens(prompt_tokens), max_tokens) for _ in range(count)]

    def burst(self) -> list[Job]:
        """Many requests of mixed lengths at once."""
        lengths = [(self._random.randint(*BURST_PROMPTS), self._random.randint(*BURST_OUTPUTS)) for _ in range(BURST)]
        return [Job(self.tokens(prompt), output) for prompt, output in lengths]
