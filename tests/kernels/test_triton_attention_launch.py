"""The launch that the host plans, the reference's variants by hand, and what a CPU does with both."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels.attention import AttentionVariant, LayerCache, PagedBatch, paged_attention, plan_launch
from kernels.attention import reference as attention_reference
from kernels.attention.launch import MAX_SPLITS
from kernels.gpu import Device

H200 = Device(90, 132)


def programs(contexts: list[int], kv_heads: int) -> int:
    """Decode programs that find something to do."""
    plan = plan_launch([1] * len(contexts), contexts, kv_heads, H200)
    return kv_heads * sum(-(-context // plan.split_tokens) for context in contexts)


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 1, 1, 1, 7]), st.integers(0, 200_000)), max_size=300),
    st.sampled_from([1, 2, 8, 32, 128]),
    st.one_of(st.none(), st.integers(1, 5000)),
)
def test_a_plan_covers_every_context(sequences: list[tuple[int, int]], kv_heads: int, window: int | None) -> None:
    queries, contexts = [query for query, _ in sequences], [context for _, context in sequences]
    plan = plan_launch(queries, contexts, kv_heads, H200, window)
    assert all(query <= 1 for query in queries[: plan.decodes])
    assert plan.decodes == len(queries) or queries[plan.decodes] > 1
    assert plan.max_queries == max(queries[plan.decodes :], default=0)
    assert plan.splits in {1 << power for power in range(8)}
    assert plan.splits <= MAX_SPLITS
    assert plan.split_tokens > 0
    assert plan.split_tokens % 64 == 0
    longest = max(contexts[: plan.decodes], default=0)
    needed = -(-min(longest, window or longest) // plan.split_tokens)
    assert needed <= plan.splits
    assert plan.splits < 2 * max(needed, 1), "half as many would do"


@pytest.mark.parametrize("context", [8_192, 32_768, 131_072])
@pytest.mark.parametrize("batch", [1, 2, 4, 8, 16])
def test_few_long_contexts_fill_the_device_in_one_round(batch: int, context: int) -> None:
    """Two programs on each of 132 multiprocessors are 264."""
    assert 0.9 * 264 <= programs([context] * batch, 8) <= 264


def test_one_short_context_is_split_as_far_as_a_tile() -> None:
    plan = plan_launch([1], [1024], 8, H200)
    assert (plan.splits, plan.split_tokens) == (16, 64)


@pytest.mark.parametrize(("batch", "context"), [(256, 1024), (256, 16_384), (33, 131_072), (1, 64), (32, 128)])
def test_what_fills_the_device_unsplit_is_not_split(batch: int, context: int) -> None:
    assert plan_launch([1] * batch, [context] * batch, 8, H200).splits == 1


def test_a_little_more_than_a_round_is_split() -> None:
    """34 × 8 programs are 8 more than a round holds: unsplit, the second round would be as long as the first."""
    plan = plan_launch([1] * 34, [4096] * 34, 8, H200)
    rounds = -(-programs([4096] * 34, 8) // 264)
    assert plan.splits > 1
    assert rounds * plan.split_tokens < 0.75 * 2 * 4096


def test_one_long_context_among_short_ones_does_not_run_alone() -> None:
    contexts = [1024] * 255 + [131_072]
    plan = plan_launch([1] * 256, contexts, 8, H200)
    assert plan.split_tokens * 264 < sum(contexts) * 8


def test_a_window_bounds_what_is_shared_out() -> None:
    assert plan_launch([1], [131_072], 8, H200, window=1024) == plan_launch([1], [1024], 8, H200)


def test_a_plan_with_its_tensor_is_a_launch() -> None:
    tokens = torch.tensor([64], dtype=torch.int32)
    launch = plan_launch([1, 0, 9], [1024, 4, 20], 8, H200).launch(tokens)
    assert (launch.decodes, launch.max_queries, launch.splits) == (2, 9, 16)
    assert launch.split_tokens is tokens


def _one_sequence(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, block_size: int = 4
) -> tuple[torch.Tensor, LayerCache, PagedBatch]:
    """``query [tokens, heads, dim]``, the last of as many tokens as ``keys [context, kv_heads, dim]``, in one block."""
    pages = [part.new_zeros(1, part.shape[1], block_size, part.shape[2]) for part in (keys, values)]
    for page, part in zip(pages, (keys, values), strict=True):
        page[0, :, : part.shape[0]] = part.transpose(0, 1)
    integers = (torch.tensor(n, dtype=torch.int32) for n in ([0, query.shape[0]], [keys.shape[0]], [[0]]))
    return query, LayerCache(*pages), PagedBatch(*integers, torch.empty(0))


def _attend(variant: AttentionVariant, keys: list[float], heads: int = 1) -> torch.Tensor:
    """The newest token's output where its score of key ``i`` is ``keys[i]`` and the values are 1, 2, 4 …"""
    key = torch.tensor(keys)[:, None, None]
    value = 2.0 ** torch.arange(len(keys))[:, None, None]
    query = torch.ones(1, heads, 1)
    problem = _one_sequence(query, key, value)
    output = paged_attention(*problem, 1.0, variant)
    torch.testing.assert_close(output, attention_reference.paged_attention(*problem, 1.0, variant))
    return output[0, :, 0]


def test_a_window_hides_all_but_the_last_keys() -> None:
    torch.testing.assert_close(_attend(AttentionVariant(window=1), [5.0, 9.0, 0.0]), torch.tensor([4.0]))
    torch.testing.assert_close(_attend(AttentionVariant(window=2), [9.0, 0.0, 0.0]), torch.tensor([3.0]))
    torch.testing.assert_close(_attend(AttentionVariant(window=3), [0.0, 0.0, 0.0]), torch.tensor([7 / 3]))


def test_a_softcap_bounds_scores() -> None:
    """Capped at ln 3, scores of ±∞ differ by ln 9."""
    output = _attend(AttentionVariant(softcap=math.log(3)), [-1e6, 1e6])
    torch.testing.assert_close(output, torch.tensor([1 * 0.1 + 2 * 0.9]))


def test_alibi_lowers_scores_by_distance_times_slope() -> None:
    slopes = torch.tensor([math.log(2), 0.0])
    output = _attend(AttentionVariant(alibi_slopes=slopes), [0.0, 0.0, 0.0], heads=2)
    torch.testing.assert_close(output, torch.tensor([(0.25 * 1 + 0.5 * 2 + 1 * 4) / 1.75, 7 / 3]))


def test_a_sink_takes_weight_and_gives_nothing() -> None:
    output = _attend(AttentionVariant(sinks=torch.tensor([0.0, math.log(6)])), [0.0, 0.0], heads=2)
    torch.testing.assert_close(output, torch.tensor([1.0, 3 / 8]))


def test_scales_multiply_what_the_cache_holds() -> None:
    keys, values = torch.tensor([[[1.0]], [[2.0]]]), torch.tensor([[[4.0]], [[8.0]]])
    scales = torch.tensor([[math.log(3)], [0.5]])
    query, cache, batch = _one_sequence(torch.ones(1, 1, 1), keys, values)
    stored = LayerCache(cache.key.to(torch.float8_e4m3fn), cache.value.to(torch.float8_e4m3fn), scales)
    output = paged_attention(query, stored, batch, 1.0)
    torch.testing.assert_close(output, torch.tensor([[[0.25 * 2 + 0.75 * 4]]]))
