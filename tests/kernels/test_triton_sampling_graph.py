"""What only a GPU can show: the sampler waits for nothing, and a captured CUDA graph of it goes on being right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from kernels.sampling import RowSampling, SamplingRows, logprobs, process_logits, sample

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

_VOCAB = 128_256
_REQUESTS = {
    0: RowSampling(1, 4, 4, temperature=0),
    1: RowSampling(2, 4, 4),
    2: RowSampling(3, 4, 4, top_k=50, top_p=0.9),
    3: RowSampling(4, 4, 4, top_p=0.95, logit_bias={7: 3.0}),
    4: RowSampling(5, 4, 4, min_p=0.02, repetition_penalty=1.2, frequency_penalty=0.3),
    5: RowSampling(6, 4, 4, allowed_token_ids=range(100, 5000)),
}


@contextmanager
def _nothing_waits() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _step(logits: torch.Tensor, rows: SamplingRows) -> tuple[torch.Tensor, ...]:
    row_of = torch.arange(len(_REQUESTS), dtype=torch.int32, device="cuda")
    position = torch.full_like(row_of, 4)
    raw = logits.clone()
    process_logits(logits, row_of, position, rows.state)
    chosen = sample(logits, row_of, position, rows.state, True)
    return chosen, *logprobs(raw, chosen, 20)


def _rows() -> SamplingRows:
    rows = SamplingRows(torch.ones(8, 64, dtype=torch.int32, device="cuda"), _VOCAB)
    rows.admit(_REQUESTS)
    return rows


def test_nothing_waits_for_the_device() -> None:
    logits = torch.randn(len(_REQUESTS), _VOCAB, device="cuda")
    _step(logits.clone(), _rows())
    with _nothing_waits():
        _step(logits, _rows())


def test_a_captured_graph_chooses_what_single_launches_choose() -> None:
    generator = torch.Generator("cuda").manual_seed(11)
    steps = torch.randn(3, len(_REQUESTS), _VOCAB, device="cuda", generator=generator) * 3
    expected = [_step(logits.clone(), _rows()) for logits in steps]
    static, rows = torch.zeros_like(steps[0]), _rows()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = _step(static, rows)
    for logits, each in zip(steps, expected, strict=True):
        rows.release(_REQUESTS)
        rows.admit(_REQUESTS)
        static.copy_(logits)
        graph.replay()
        for mine, theirs in zip(captured, each, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
