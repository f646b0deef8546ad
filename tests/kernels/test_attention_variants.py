"""Windows, softcaps, ALiBi and sinks on a CPU, in caches that are NaN in all places that no query sees, with table
entries far outside the cache where no query needs one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.attention import PLAIN, AttentionVariant, LayerCache, PagedBatch, cpu, paged_attention, reference
from kernels.native import library
from kernels.native.program import Arena, Program
from kernels.rotate_and_store import HeadNorms, rotate_and_store
from tests.kernels.test_triton_attention import Built, Heads, Problem, Sequence

HEADS = [Heads(3, 1, 12), Heads(4, 2, 16), Heads(9, 3, 80), Heads(6, 6, 96), Heads(2, 1, 256), Heads(71, 1, 8)]
VARIED = Problem(
    (Sequence(1, 300), Sequence(37, 37), Sequence(90, 170), Sequence(1, 1), Sequence(130, 200)),
    Heads(6, 2, 24),
    block_size=32,
    softcap=2.0,
    alibi=True,
    sinks=True,
)


class Stored(Built):
    """A problem whose tokens the chosen form for CPUs has stored, those that nobody wrote too: as NaN."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        heads, block_size = problem.heads, problem.block_size
        # No query heads: keys and values only.
        tokens = torch.cat([part.transpose(1, 2).flatten(2) for part in self.poisoned[:2]], dim=-1).flatten(0, 1)
        shape = (len(tokens) // block_size, heads.kv, block_size, heads.dim)
        self.stored = LayerCache(*(torch.empty(shape, dtype=problem.dtype) for _ in "kv"))
        angles = torch.empty(len(tokens), 0)
        rotate_and_store(tokens, angles, angles, torch.arange(len(tokens)), self.stored)

    def attend(self, variant: AttentionVariant) -> torch.Tensor:
        batch = PagedBatch(self.starts, self.contexts, self.poisoned_table, torch.empty(0))
        return paged_attention(self.query, self.stored, batch, self.problem.scale, variant)

    def attend_in_chunks(self, sequence: int, chunk: int) -> torch.Tensor:
        """One sequence alone, so many query tokens at a time."""
        first, last = self.starts[sequence : sequence + 2].tolist()
        table = self.poisoned_table[sequence : sequence + 1]
        outputs = []
        for start in range(first, last, chunk):
            stop = min(start + chunk, last)
            integers = (torch.tensor(n, dtype=torch.int32) for n in ([0, stop - start], [0]))
            starts, context = integers
            context += self.contexts[sequence] - (last - stop)
            batch = PagedBatch(starts, context, table, torch.empty(0))
            scale = self.problem.scale
            outputs.append(paged_attention(self.query[start:stop], self.stored, batch, scale, self.variant))
        return torch.cat(outputs)

    def check(self) -> None:
        """The chosen form, and both that read the plain layout."""
        expected, problem = self.expected(), self.problem
        tolerance = 2e-5 if expected.dtype == torch.float32 else 2e-2
        batch = PagedBatch(self.starts, self.contexts, self.poisoned_table, torch.empty(0))
        outputs = [self.attend(self.variant)]
        for form in (cpu, reference):
            outputs.append(form.paged_attention(self.query, self.poisoned, batch, problem.scale, self.variant))
        for actual in outputs:
            torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


def test_a_chunk_of_several_tiles_in_plain_torch() -> None:
    sequences = (Sequence(600, 800), Sequence(300, 300))
    for window in (None, 100):
        Stored(Problem(sequences, Heads(2, 1, 8), 32, window=window, softcap=5.0, alibi=True, sinks=True)).check()


@st.composite
def _problems(draw: st.DrawFn) -> Problem:
    sequences = []
    for _ in range(draw(st.integers(1, 4))):
        context = draw(st.one_of(st.sampled_from([1, 31, 32, 33, 127, 128, 129]), st.integers(1, 300)))
        sequences.append(Sequence(draw(st.one_of(st.just(1), st.just(context), st.integers(1, context))), context))
    return Problem(
        tuple(sequences),
        draw(st.sampled_from(HEADS)),
        draw(st.sampled_from([16, 32, 64])),
        draw(st.sampled_from([torch.float32, torch.bfloat16])),
        window=draw(st.one_of(st.none(), st.sampled_from([1, 2, 31, 32, 33, 128]), st.integers(1, 320))),
        softcap=draw(st.sampled_from([None, 2.0, 50.0])),
        alibi=draw(st.booleans()),
        sinks=draw(st.booleans()),
        scale=draw(st.sampled_from([0.05, 0.3])),
        seed=draw(st.integers(0, 2**31)),
    )


@settings(max_examples=80, deadline=None)
@given(problem=_problems())
def test_random_batches(problem: Problem) -> None:
    Stored(problem).check()


@pytest.mark.parametrize("window", [1, 2, 31, 32, 33, 64, 127, 128, 129, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_windows(window: int, dtype: torch.dtype) -> None:
    sequences = (Sequence(1, 300), Sequence(150, 290), Sequence(40, 40), Sequence(64, 128))
    Stored(Problem(sequences, Heads(3, 1, 16), 32, dtype, window=window)).check()


@pytest.mark.skipif(not library.processor_suffices(), reason="needs a processor with AVX512-BF16")
@pytest.mark.parametrize("window", [None, 1, 45, 128, 129])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_results_do_not_depend_on_the_batch(window: int | None, dtype: torch.dtype) -> None:
    """Bit by bit: with any neighbours, and in any chunks, each of which has a window that begins elsewhere."""
    built = Stored(replace(VARIED, window=window, dtype=dtype))
    together = built.attend(built.variant)
    for sequence in range(len(built.contexts)):
        expected = together[built.starts[sequence] : built.starts[sequence + 1]]
        for chunk in (1000, 33, 7):
            assert torch.equal(built.attend_in_chunks(sequence, chunk), expected)


@pytest.mark.skipif(not library.processor_suffices(), reason="needs a processor with AVX512-BF16")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_window_that_holds_everything_changes_nothing(dtype: torch.dtype) -> None:
    built = Stored(replace(VARIED, dtype=dtype))
    assert torch.equal(built.attend(AttentionVariant(window=300)), built.attend(PLAIN))


@pytest.mark.skipif(not library.processor_suffices(), reason="needs a processor with AVX512-BF16")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_recorded_step_follows_its_inputs(dtype: torch.dtype) -> None:
    """Norms, storage and attention recorded for one token's numbers and place, and replayed for others'."""
    generator = torch.Generator().manual_seed(0)
    heads, kv_heads, head_dim, steps = 6, 2, 16, 70
    weights = [torch.randn(count * head_dim, generator=generator) for count in (heads, kv_heads, heads, kv_heads)]
    norms = HeadNorms(*weights[:2], 1e-5, "layer", "head", *weights[2:], after_rotation=True)
    variant = AttentionVariant(20, 3.0, torch.rand(heads, generator=generator), torch.randn(heads, generator=generator))
    qkv = torch.randn(steps, (heads + 2 * kv_heads) * head_dim, generator=generator).to(dtype)
    angles = torch.randn(steps, 4, generator=generator)
    caches = [LayerCache(*(torch.empty(4, kv_heads, 32, head_dim, dtype=dtype) for _ in "kv")) for _ in range(2)]
    table = torch.tensor([[2, 0, 3]], dtype=torch.int32)
    starts, context, slot = torch.tensor([0, 1], dtype=torch.int32), torch.ones(1, dtype=torch.int32), torch.zeros(1)
    batch = PagedBatch(starts, context, table, slot.long())
    row, cos, sin = qkv[:1].clone(), angles[:1].cos(), angles[:1].sin()

    def attend(cache: LayerCache) -> torch.Tensor:
        query = rotate_and_store(row, cos, sin, batch.slots, cache, norms)
        return paged_attention(query, cache, batch, 1, variant)

    program = Program(lambda: attend(caches[0]), Arena(1 << 16))
    for step in range(steps):
        cos.copy_(angles[step : step + 1].cos())
        sin.copy_(angles[step : step + 1].sin())
        context.fill_(step + 1)
        batch.slots.fill_(int(table[0, step // 32]) * 32 + step % 32)
        row.copy_(qkv[step : step + 1])
        replayed = program.replay().clone()
        row.copy_(qkv[step : step + 1])
        assert torch.equal(replayed, attend(caches[1]))


@pytest.mark.parametrize("block_size", [16, 32])
def test_large_scores_do_not_overflow(block_size: int) -> None:
    sequences = (Sequence(1, 33), Sequence(9, 20))
    for softcap in (None, 30.0):
        Stored(Problem(sequences, block_size=block_size, scale=1e34, softcap=softcap, sinks=True)).check()


def test_small_scores_keep_their_digits_under_a_large_cap() -> None:
    """Scores of a thousandth, which a cap of 100 leaves as they are: against attention without a cap."""
    built = Stored(Problem((Sequence(60, 60),), block_size=32, scale=1e-4))
    torch.testing.assert_close(built.attend(AttentionVariant(softcap=100.0)), built.attend(PLAIN), atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize(
    ("variant", "complaint"),
    [
        (lambda: AttentionVariant(window=0), "a window of 0 tokens"),
        (lambda: AttentionVariant(softcap=-1.0), "a softcap of -1.0"),
        (lambda: AttentionVariant(sinks=torch.zeros(4)), r"sinks are \[4\] torch.float32 .*, not \[6\]"),
        (lambda: AttentionVariant(sinks=torch.zeros(1).expand(6)), r"sinks are .* in steps of \[0\]"),
        (lambda: AttentionVariant(alibi_slopes=torch.zeros(6).bfloat16()), "alibi_slopes are .* torch.bfloat16"),
    ],
)
def test_variants_that_do_not_fit(variant: object, complaint: str) -> None:
    built = Stored(VARIED)
    with pytest.raises(ValueError, match=complaint):
        built.attend(variant())  # type: ignore[operator]
