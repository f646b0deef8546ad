"""Every figure of the kernels, computed at tiny sizes by whatever runs Triton forms here, with a clock of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.kernels import attention, latent, linear, moe, sampling, streams
from benchmarks.gpu.results import Figure
from benchmarks.gpu.timing import Timing
from benchmarks.gpu.workloads.attention import Heads
from benchmarks.gpu.workloads.attention import attention as attention_call
from benchmarks.gpu.workloads.moe import Experts
from kernels.gpu import Device, standing_in


class CallingOnce:
    """Makes every call once; each takes a second by its clock."""

    def measure(self, call: Callable[[], object]) -> Timing:
        call()
        return Timing(1.0, 1.0, 1, True)


class Measured:
    """A bench, what it kept and what it said."""

    def __init__(self, device: torch.device) -> None:
        self.figures: list[Figure] = []
        self.said: list[str] = []
        self.bench = Bench(device, CallingOnce(), self.figures.append, self.said.append)

    def only(self, row: str) -> list[Figure]:
        assert {figure.row for figure in self.figures} == {row}
        return self.figures


@pytest.fixture
def measured() -> Iterator[Measured]:
    if torch.cuda.is_available():
        yield Measured(torch.device("cuda"))
        return
    with standing_in(Device(90, 132)):
        yield Measured(torch.device("cpu"))


TINY = Heads(heads=4, kv_heads=2, head_dim=64, page=16)


def test_decodes(measured: Measured) -> None:
    attention.decode(measured.bench, TINY, batches=(1, 2), contexts=(32, 10**11))
    small, larger = measured.only("decode_attention")
    # Keys and values of 32 tokens, 2 heads, 64 elements of 2 bytes; a query and an output of 4 heads.
    assert small.bytes == 32 * 2 * 2 * 64 * 2 + 2 * 4 * 64 * 2
    assert small.operations == 4 * 4 * 64 * 32
    assert larger.bytes == 2 * small.bytes
    assert set(small.peers) >= {"SDPA over gathered pages", "SDPA, pages gathered before"}
    assert len([line for line in measured.said if "do not fit" in line]) == 2


def test_gathered_pages_are_what_the_kernel_reads(measured: Measured) -> None:
    heads = replace(TINY, dtype=torch.float32)
    call = attention_call(heads, [1, 1], [40, 40], heads.pool(96, measured.bench.device))
    key, value = attention.gather(call.cache, call.batch.block_tables, 40)
    expected = torch.nn.functional.scaled_dot_product_attention(call.query.view(2, 2, 2, 64), key, value)
    torch.testing.assert_close(call().view(2, 2, 2, 64), expected, rtol=1e-4, atol=1e-4)


def test_prefills(measured: Measured) -> None:
    attention.prefill(measured.bench, TINY, prompts=(16,))
    (figure,) = measured.only("prefill_attention")
    assert figure.operations == 4 * 4 * 64 * (16 * 17 // 2)


def test_streams(measured: Measured) -> None:
    streams.measure(measured.bench, tokens=2, hidden=256, intermediate=64)
    figures = {figure.case: figure.bytes for figure in measured.only("fused")}
    assert figures == {
        "residual + RMSNorm": 4 * 2 * 256 * 2 + 256 * 2,
        "residual + LayerNorm": 4 * 2 * 256 * 2 + 2 * 256 * 2,
        "rotary + KV write": 2 * 2 * 6144 * 2 + 2 * (64 * 2 * 4 + 8),
        "SwiGLU": 3 * 2 * 64 * 2,
        "embedding": 2 * 2 * 256 * 2 + 2 * 8,
    }


def test_the_sampler(measured: Measured) -> None:
    sampling.measure(measured.bench, batches=(2,), vocab=512)
    assert not measured.said
    rows = [figure.row for figure in measured.figures]
    assert rows == ["sampler"] * 4 + ["processing", "logprobs"]
    assert measured.figures[0].bytes == 2 * 512 * 4


def test_products_of_few_rows(measured: Measured) -> None:
    linear.measure(measured.bench, rows=(1, 2), shapes={"qkv": (64, 128)}, gated=(32, 128))
    one, two, *gated = measured.only("few_rows")
    assert one.bytes == 2 * (64 * 128 + 64 + 128)
    assert two.operations == 2 * one.operations == 4 * 64 * 128
    assert all(figure.peers for figure in (one, two, *gated))


def test_mixtures_count_the_experts_that_are_used(measured: Measured) -> None:
    experts = Experts(hidden=64, intermediate=32, experts=4, top_k=2)
    moe.measure(measured.bench, {"tiny": experts}, batches=(1, 40))
    one, many = measured.only("moe")
    expert = 3 * 64 * 32 * 2
    assert one.bytes == 2 * expert + 2 * 64 * 2
    assert many.bytes == 4 * expert + 40 * 2 * 64 * 2
    assert one.operations == 2 * 6 * 64 * 32


def test_latent_attention(measured: Measured) -> None:
    latent.measure(measured.bench, heads=(4,), cases=((2, 32),))
    (figure,) = measured.only("latent_attention")
    assert figure.bytes == 2 * 2 * (32 * 576 + 4 * (576 + 512))
    assert figure.operations == 2 * 4 * 32 * 2 * (576 + 512)


def test_a_call_that_fails_is_said_and_leaves_no_figure(measured: Measured) -> None:
    def fails() -> object:
        raise ValueError("no such shape")

    measured.bench.figure("moe", "broken", fails)
    measured.bench.figure("moe", "peer broken", lambda: None, peers={"other": fails, "third": lambda: None})
    (figure,) = measured.figures
    assert figure.peers == {"third": 1.0}
    assert measured.said == ["moe, broken: ValueError: no such shape", "other: ValueError: no such shape"]
