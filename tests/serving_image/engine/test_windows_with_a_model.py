"""Models with sliding windows on the engine, against Transformers: chunks, shared prefixes, preemption, and how much of
the cache they hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from transformers import Gemma2Config, Gemma3TextConfig, MistralConfig

from serving_image.engine.core import EngineCore
from tests.serving_image.generation import boot_engine, greedy_request, run_to_end, start, tokens_by_request
from tests.serving_image.models.families.case import VOCAB_SIZE, Case, Reference, transformers_case

WINDOW, BLOCK, BUDGET = 11, 32, 24
MOST = (WINDOW + BUDGET - 3) // BLOCK + 2
_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "sliding_window": WINDOW,
}
_GEMMA = {"num_hidden_layers": 4, "query_pre_attn_scalar": 16}
CASES = [
    transformers_case("mistral, one group", MistralConfig, num_hidden_layers=2, **_SIZES),
    transformers_case("gemma2, two groups", Gemma2Config, **_GEMMA, **_SIZES),
    transformers_case("gemma3, four groups", Gemma3TextConfig, sliding_window_pattern=4, **_GEMMA, **_SIZES),
]


class Truth(NamedTuple):
    """A checkpoint, and what its model scores."""

    folder: Path
    reference: Reference

    def greedy(self, prompt: Sequence[int], max_tokens: int) -> list[int]:
        tokens = list(prompt)
        for _ in range(max_tokens):
            tokens.append(int(self.reference(tokens)[-1].argmax()))
        return tokens[len(prompt) :]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def truth(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Truth:
    case: Case = request.param
    folder = tmp_path_factory.mktemp("model")
    return Truth(folder, case.write(folder))


def random_prompt(length: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCAB_SIZE, (length,), generator=generator).tolist()


def contexts(folder: Path, num_tokens: int) -> int:
    """Blocks that hold one request of so many tokens."""
    return boot_engine(folder, block_size=BLOCK, max_num_batched_tokens=BUDGET).core._pool.demand.most(num_tokens)


def start_with_blocks(folder: Path, num_blocks: int, **options: Any) -> EngineCore:
    settings = {"block_size": BLOCK, "max_num_batched_tokens": BUDGET} | options
    ready = boot_engine(folder, **settings).ready
    return start(folder, kv_cache_memory=num_blocks * ready.kv_cache_bytes // ready.num_blocks, **settings)


def test_long_prompts_in_chunks_side_by_side_equal_transformers(truth: Truth) -> None:
    core = start(truth.folder, block_size=BLOCK, max_num_batched_tokens=BUDGET)
    prompts = {str(index): random_prompt(length, seed=index) for index, length in enumerate((1, 37, 150, 90))}
    for name, prompt in prompts.items():
        core.add(greedy_request(name, prompt, 12))
    most = 0
    tokens: dict[str, list[int]] = {name: [] for name in prompts}
    while core.has_work:
        for output in core.step().outputs:
            tokens[output.request_id] += output.token_ids
        most = max([most, *(len(held.blocks) for held in windowed_tables(core))])
    assert tokens == {name: truth.greedy(prompt, 12) for name, prompt in prompts.items()}
    assert 0 < most <= MOST < 150 // BLOCK
    assert core.stats().num_free_blocks == core.stats().num_total_blocks


def windowed_tables(core: EngineCore) -> list[Any]:
    """Of all live requests."""
    return [
        held
        for request in core._live.values()
        for group, held in zip(core._pool.demand.groups, request.blocks.groups, strict=False)
        if group.window is not None
    ]


def test_preemption_changes_no_token(truth: Truth) -> None:
    core = start_with_blocks(truth.folder, contexts(truth.folder, 100), max_model_len=100)
    prompts = {str(index): random_prompt(25 + index, seed=index) for index in range(3)}
    for name, prompt in prompts.items():
        core.add(greedy_request(name, prompt, 60))
    tokens = tokens_by_request(run_to_end(core)[0])
    assert tokens == {name: truth.greedy(prompt, 60) for name, prompt in prompts.items()}
    stats = core.stats()
    assert stats.num_preemptions > 0
    assert stats.num_free_blocks == stats.num_total_blocks


def test_shared_prefixes_change_no_token(truth: Truth) -> None:
    """Conversations that share a beginning go on in a cache that holds one or two of them."""
    core = start_with_blocks(truth.folder, contexts(truth.folder, 130) + 2, max_model_len=130)
    beginning = random_prompt(70, seed=1)
    prompts = {name: beginning + random_prompt(3 + index, seed=index) for index, name in enumerate("abc")}
    for _ in range(3):
        for name, prompt in prompts.items():
            core.add(greedy_request(name, prompt, 9))
        tokens = tokens_by_request(run_to_end(core)[0])
        for name, prompt in prompts.items():
            assert tokens[name] == truth.greedy(prompt, 9)
            prompts[name] = prompt + tokens[name] + [7, 8]
    stats = core.stats()
    assert stats.prefix_cache_hits > 0
    assert stats.num_free_blocks == stats.num_total_blocks
