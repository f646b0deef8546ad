"""A step's worth of requests for the tests of the GPU sampler, with poison wherever nothing may be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels.sampling import RowSampling, SamplingRows, process_logits, sample

POISON = 2**30


class Asked(NamedTuple):
    """A request and its tokens."""

    sampling: RowSampling
    tokens: list[int]

    @property
    def num_output(self) -> int:
        return len(self.tokens) - self.sampling.prompt_length


def ask(prompt: Sequence[int] = (0,), output: Sequence[int] = (), seed: int = 0, **params: Any) -> Asked:
    return Asked(RowSampling(seed, len(prompt), len(prompt) + len(output), **params), [*prompt, *output])


class Batch:
    """Requests in rows in falling order; a padding row of NaN comes after the first, and NaN after every row."""

    def __init__(self, asked: Sequence[Asked], logits: Tensor, device: torch.device) -> None:
        count, vocab = logits.shape
        tokens = torch.full((count + 2, 16 + max(len(each.tokens) for each in asked)), POISON, dtype=torch.int32)
        for row, each in zip(self._rows(count), asked, strict=True):
            tokens[row, : len(each.tokens)] = torch.tensor(each.tokens)
        self.tokens = tokens.to(device, copy=True)
        self.rows = SamplingRows(self.tokens, vocab)
        self.rows.admit({row: each.sampling for row, each in zip(self._rows(count), asked, strict=True)})
        self._members = [0, *range(2, count + 1)]
        padded = torch.full((count + 1, -(-(vocab + 1) // 16) * 16), float("nan"))
        padded[self._members, :vocab] = logits
        self._logits = padded.to(device, copy=True)[:, :vocab]
        self._row_of = torch.full((count + 1,), -1, dtype=torch.int32)
        self._row_of[self._members] = torch.tensor(self._rows(count), dtype=torch.int32)
        self._position = torch.full((count + 1,), POISON, dtype=torch.int32)
        self._position[self._members] = torch.tensor([len(each.tokens) for each in asked], dtype=torch.int32)
        self._row_of, self._position = self._row_of.to(device), self._position.to(device)

    @staticmethod
    def _rows(count: int) -> list[int]:
        return list(range(count, 0, -1))

    def process(self) -> Tensor:
        """The scores after processing, ``[requests, vocab]``."""
        process_logits(self._logits, self._row_of, self._position, self.rows.state)
        assert self._logits[1].isnan().all()
        return self._logits.cpu()[self._members]

    def sample(self, truncates: bool | None = None) -> list[int]:
        """The chosen tokens; each must also have been written after its request's own."""
        rows = [row for row in self._row_of.tolist() if row >= 0]
        before = self.tokens.cpu().clone()
        asked = self.rows.truncates(rows) if truncates is None else truncates
        chosen = sample(self._logits, self._row_of, self._position, self.rows.state, asked).tolist()
        assert chosen.pop(1) == -1
        for row, position, token in zip(rows, self._position[self._members].tolist(), chosen, strict=True):
            before[row, position] = max(token, 0)
        assert torch.equal(self.tokens.cpu(), before)
        return chosen

    def load(self, logits: Tensor) -> None:
        """The next step's scores."""
        self._logits[self._members] = logits.to(self._logits.device)

    def advance(self) -> None:
        """Let what was sampled count: the next token comes after it."""
        self._position += 1
