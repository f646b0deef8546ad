"""Recorded decode steps against the same steps unrecorded, and the arena that recorded results lie in."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import OlmoeConfig

from kernels.linear import EXACT, INT8, Layout
from kernels.native import library
from kernels.native.program import Arena, Program
from serving_image.engine.block_table import GroupTable
from serving_image.engine.protocol import SamplingParams
from serving_image.engine.request import Request
from serving_image.engine.step import ScheduledRequest
from serving_image.models.decoder import Decoder
from serving_image.models.parameters import parameter_specs
from serving_image.models.registry import ModelFolder
from serving_image.models.weights import iter_random_parameters
from serving_image.runtime.batch import model_input
from serving_image.runtime.decode_programs import DecodePrograms
from serving_image.runtime.kv_storage import allocate_kv_cache
from tests.serving_image.checkpoints import random_prompt, write_checkpoint
from tests.serving_image.models.families.case import transformers_case

CPU = torch.device("cpu")
MAX_BLOCKS = 6
NUM_REQUESTS = 8
compiled = pytest.mark.skipif(not library.processor_suffices(), reason="needs a processor with AVX512-BF16")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return ModelFolder.open(write_checkpoint(tmp_path_factory.mktemp("model"), max_position_embeddings=32 * MAX_BLOCKS))


class Side:
    """One of two decoders with the same weights; it remembers what it has computed in a cache of its own."""

    def __init__(self, model: ModelFolder, dtype: torch.dtype, layout: Layout, block_size: int = 32) -> None:
        config = model.decoder
        parameters = iter_random_parameters(parameter_specs(config), dtype, seed=3, device=CPU)
        self.decoder = Decoder(config, parameters, dtype, CPU, layout)
        self.caches = allocate_kv_cache(config.cache_layout, NUM_REQUESTS * MAX_BLOCKS, block_size, dtype, CPU)
        for part in self.cache_memory:
            part.zero_()
        self.programs = DecodePrograms(self.decoder, self.caches, MAX_BLOCKS)

    @property
    def cache_memory(self) -> list[torch.Tensor]:
        return [part for cache in self.caches for part in (cache.key, cache.value)]

    @torch.inference_mode()
    def unrecorded(self, items: Sequence[ScheduledRequest]) -> torch.Tensor:
        inputs = model_input(items, self.caches[0].block_size, CPU)
        return self.decoder.forward(inputs, self.caches)

    @torch.inference_mode()
    def recorded(self, items: Sequence[ScheduledRequest]) -> torch.Tensor:
        assert self.programs.covers(items)
        return self.programs.forward(items).clone()


def new_requests() -> list[Request]:
    """Of different lengths, in blocks that lie apart."""
    blocks = random.Random(0).sample(range(NUM_REQUESTS * MAX_BLOCKS), NUM_REQUESTS * MAX_BLOCKS)  # noqa: S311
    requests = []
    for index in range(NUM_REQUESTS):
        prompt = random_prompt(1 + 17 * index, seed=index)
        request = Request(str(index), prompt, len(prompt), SamplingParams(), seed=0, max_length=32 * MAX_BLOCKS)
        request.blocks.groups = (GroupTable(0, blocks[index::NUM_REQUESTS]),)
        requests.append(request)
    return requests


def advance(request: Request, num_tokens: int, block_size: int = 32) -> ScheduledRequest:
    """The request's next tokens; it has as many of them as are asked for."""
    start = request.num_computed_tokens
    request.num_computed_tokens = stop = start + num_tokens
    while len(request.device_tokens) < stop:
        request.device_tokens.append((7 * len(request.device_tokens) + 11) % 256)
    return ScheduledRequest(request, start, num_tokens, request.blocks.spans(-(-stop // block_size)), True)


@compiled
@pytest.mark.parametrize("layout", [EXACT, INT8], ids=["exact", "int8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_steps_in_any_order_equal_unrecorded_ones_bit_by_bit(
    model: ModelFolder, dtype: torch.dtype, layout: Layout
) -> None:
    """Batches of 1 to 5 requests of any context; between them longer chunks, which are not recorded, are run as well.

    In the end both caches hold the same, which says that a replay also writes what it must.
    """
    choose = random.Random(1)  # noqa: S311
    plain, replayed = Side(model, dtype, layout), Side(model, dtype, layout)
    requests = new_requests()
    for request in requests:
        prefill = [advance(request, request.num_prompt_tokens)]
        plain.unrecorded(prefill)
        replayed.unrecorded(prefill)
    sizes = [1, 2, 3, 4, 5] * 8
    choose.shuffle(sizes)
    for index, size in enumerate(sizes):
        if index % 5 == 4:
            chunks = [advance(request, 2 + index % 3) for request in choose.sample(requests, 2)]
            assert not replayed.programs.covers(chunks)
            assert torch.equal(replayed.unrecorded(chunks), plain.unrecorded(chunks))
        items = [advance(request, 1) for request in choose.sample(requests, size)]
        expected = plain.unrecorded(items)
        assert expected.isfinite().all()
        assert torch.equal(replayed.recorded(items), expected)
    for one, other in zip(replayed.cache_memory, plain.cache_memory, strict=True):
        assert torch.equal(one, other)


def test_many_requests_and_longer_chunks_are_not_recorded(model: ModelFolder) -> None:
    side = Side(model, torch.float32, EXACT)
    one, other, *_ = new_requests()
    item = advance(one, 1)
    assert side.programs.covers([item] * 100) == (library.load() is not None)
    assert not side.programs.covers([item] * 1000)
    assert not side.programs.covers([item, advance(other, 2)])


def test_a_layout_of_other_kernels_is_not_recorded(model: ModelFolder) -> None:
    side = Side(model, torch.float32, EXACT, block_size=16)
    assert not side.programs.covers([advance(new_requests()[0], 1, block_size=16)])


@compiled
def test_a_model_that_torch_computes_a_part_of_goes_on_unrecorded(tmp_path: Path) -> None:
    """OLMoE's norms before a clip are partly torch's: a replay would pass on what they gave when they were recorded."""
    settings = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 2}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "clip_qkv": 0.5}
    transformers_case("clipped", OlmoeConfig, vocab_size=256, eos_token_id=2, **experts, **settings).write(tmp_path)
    plain, other = (Side(ModelFolder.open(tmp_path), torch.float32, EXACT) for _ in range(2))
    requests = new_requests()[:3]
    for step in range(3):
        items = [advance(request, 1) for request in requests]
        found = other.recorded(items) if step == 0 else other.unrecorded(items)
        assert torch.equal(found, plain.unrecorded(items))
        assert not other.programs.covers(items)


def _random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@compiled
class TestProgram:
    def test_a_replay_reads_what_lies_in_its_inputs_now(self) -> None:
        """Two programs in turn, in one arena."""
        first, second = EXACT.weight(_random(1, 48, 64)), EXACT.weight(_random(2, 64, 48))
        x = _random(0, 3, 64)
        arena = Arena(1 << 16)

        def compute(rows: int) -> torch.Tensor:
            return second.multiply(first.multiply(x[:rows]), residual=x[:rows])

        programs = {rows: Program(lambda rows=rows: compute(rows), arena) for rows in (3, 2)}
        assert torch.equal(programs[2].output, compute(2))
        for seed in range(10, 20):
            x.copy_(_random(seed, 3, 64))
            rows = 2 + seed % 2
            assert torch.equal(programs[rows].replay(), compute(rows))

    def test_what_cannot_be_recorded_is_refused_and_leaves_no_trace(self) -> None:
        weight, x = _random(1, 64, 64), _random(0, 2, 64)
        arena = Arena(4096)
        with pytest.raises(ValueError, match="cannot be recorded"):
            Program(lambda: EXACT.weight(weight).multiply(x), arena)
        prepared = EXACT.weight(weight)
        torch.testing.assert_close(prepared.multiply(x), x @ weight.T, atol=1e-4, rtol=1e-4)
        assert torch.equal(Program(lambda: prepared.multiply(x), arena).replay(), prepared.multiply(x))

    def test_a_program_that_the_arena_cannot_hold_is_refused(self) -> None:
        prepared, x = EXACT.weight(_random(1, 64, 64)), _random(0, 2, 64)
        with pytest.raises(MemoryError):
            Program(lambda: prepared.multiply(x), Arena(256))
        assert prepared.multiply(x).shape == (2, 64)


class TestArena:
    SIZE = 4096

    @settings(deadline=None, max_examples=150)
    @given(
        st.lists(
            st.one_of(
                st.tuples(
                    st.integers(1, 9),
                    st.integers(1, 40),
                    st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.uint8]),
                    st.booleans(),
                ),
                st.integers(0, 20),
            ),
            max_size=40,
        )
    )
    def test_live_tensors_never_overlap_and_in_the_end_all_is_free(self, actions: list[object]) -> None:
        """An action makes a tensor, of which perhaps only a row is kept, or drops one. Each is filled with a value of
        its own, so that another that lay there too would be seen."""
        arena = Arena(self.SIZE)
        live: list[tuple[torch.Tensor, int]] = []
        for number, action in enumerate(actions):
            if isinstance(action, tuple):
                rows, columns, kind, keep_row = action
                try:
                    tensor = arena.empty((rows, columns), kind)
                except MemoryError:
                    continue
                assert (tensor.shape, tensor.dtype, tensor.is_contiguous()) == ((rows, columns), kind, True)
                assert tensor.data_ptr() % 64 == 0
                tensor.fill_(number)
                live.append((tensor[-1] if keep_row else tensor, number))
                del tensor
            elif live:
                del live[action % len(live)]
            for tensor, value in live:
                assert (tensor == value).all()
            ends = sorted((tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes) for tensor, _ in live)
            assert all(end <= start for (_, end), (start, _) in pairwise(ends))
            assert all(0 <= start - ends[0][0] < self.SIZE for start, _ in ends)
        if live:
            with pytest.raises(MemoryError):
                arena.empty((self.SIZE,), torch.uint8)
        tensor = None
        live.clear()
        assert arena.empty((self.SIZE,), torch.uint8).nbytes == self.SIZE

    def test_it_is_full_only_when_no_piece_is_large_enough(self) -> None:
        arena = Arena(256)
        pieces = [arena.empty((16,), torch.float32) for _ in range(4)]
        with pytest.raises(MemoryError, match="64 bytes"):
            arena.empty((1,), torch.uint8)
        del pieces[0], pieces[1]  # the first and the third
        with pytest.raises(MemoryError):
            arena.empty((32,), torch.float32)
        del pieces[0]
        assert arena.empty((48,), torch.float32).nbytes == 192

    def test_what_was_unleased_stays_readable_and_may_be_given_out(self) -> None:
        arena = Arena(64)
        leased = arena.empty((4, 4), torch.float32).fill_(5)
        again = arena.unleased(leased)
        assert again.data_ptr() == leased.data_ptr()
        assert torch.equal(again, leased)
        del leased
        assert arena.empty((16,), torch.float32).data_ptr() == again.data_ptr()
