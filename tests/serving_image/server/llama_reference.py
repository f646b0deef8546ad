"""What Transformers makes of the tiny Llama that a test's server serves: the independent truth for its API.

Answers are held to single letters (``allowed_token_ids``) where a test must know their token ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from tests.serving_image.serving import RunningServer

PROMPT = "The quick brown fox"
LETTERS = "abcdefgh"


class Reference:
    """Transformers' logits for the served model."""

    def __init__(self, folder: Path, server: RunningServer) -> None:
        torch.set_num_threads(1)
        self.model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.tokenize = lambda text: server.post("/tokenize", {"prompt": text}).json()["tokens"]
        self.prompt = self.tokenize(PROMPT)
        self.letters = {letter: self.tokenize(letter)[0] for letter in LETTERS}

    @torch.no_grad()
    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        """``[tokens, vocab]``: row i is about the token after ids[: i + 1]."""
        return self.model(torch.tensor([list(ids)])).logits[0]

    def logprobs(self, ids: Sequence[int]) -> torch.Tensor:
        return self.logits(ids).log_softmax(-1)

    def greedy_letters(
        self, prompt: Sequence[int], length: int, change: Callable[[torch.Tensor, list[int]], torch.Tensor]
    ) -> str:
        """The best letter, again and again, of logits that ``change`` has been given with the answer so far."""
        answer: list[int] = []
        names = {id_: letter for letter, id_ in self.letters.items()}
        while len(answer) < length:
            row = change(self.logits([*prompt, *answer])[-1].clone(), answer)
            answer.append(max(names, key=lambda id_, row=row: float(row[id_])))
        return "".join(names[id_] for id_ in answer)
