"""The sampler: one launch of everything that a step may ask for."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.gpu.compiled.case import Case
from benchmarks.gpu.workloads.sampling import sampler

_CPU = torch.device("cpu")
_REQUESTS, _VOCAB = 8, 128_256


def cases() -> Iterator[Case]:
    """Of a vocabulary that 16 divides, as most are, so that rows begin where 128-bit loads can."""
    yield Case("sampling", "sample", lambda: sampler(_REQUESTS, _VOCAB, _CPU, temperature=0.8).sample())
    yield Case("sampling", "sample truncated", lambda: sampler(_REQUESTS, _VOCAB, _CPU, top_k=50, top_p=0.9).sample())
    yield Case("sampling", "process", _process)
    yield Case("sampling", "logprobs 5", lambda: sampler(_REQUESTS, _VOCAB, _CPU).logprobs(5))


def _process() -> None:
    sampler(_REQUESTS, _VOCAB, _CPU, frequency_penalty=0.5, logit_bias={7: 1.0}).process()
