"""The sampler at the vocabulary of Llama 3."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.workloads.sampling import sampler

VOCABULARY = 128_256


def measure(bench: Bench, batches: Sequence[int] = (256, 64, 1), vocab: int = VOCABULARY) -> None:
    """What a step may ask for. The floor is one reading of the scores; what changes them reads and writes them."""
    asks: dict[str, dict[str, object]] = {
        "top-k 50, top-p 0.9": {"top_k": 50, "top_p": 0.9},
        "top-p 0.9": {"top_p": 0.9},
        "temperature only": {"temperature": 0.8},
        "greedy": {"temperature": 0.0},
    }
    for batch in batches:
        scores = 4 * batch * vocab
        for name, asked in asks.items():
            call = sampler(batch, vocab, bench.device, **asked)
            bench.figure("sampler", f"batch {batch}, {name}", call.sample, moved=scores)
        call = sampler(batch, vocab, bench.device, frequency_penalty=0.5, presence_penalty=0.5)
        bench.figure("processing", f"batch {batch}, penalties", call.process, moved=3 * scores)
        bench.figure("logprobs", f"batch {batch}, top 5", lambda call=call: call.logprobs(5), moved=scores)  # type: ignore[misc]
