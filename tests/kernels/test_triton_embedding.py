"""The gather of a table's rows, on a GPU and on a CPU, against the reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels.embedding import embed, reference


def _table(vocabulary: int, hidden: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(vocabulary, hidden, generator=torch.Generator().manual_seed(seed)).to(dtype)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    token_ids=st.lists(st.integers(-1, 16), min_size=1, max_size=12),
    index=st.sampled_from([torch.int32, torch.int64]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    hidden=st.sampled_from([1, 64, 100, 2048, 2049, 5000]),
    given_memory=st.booleans(),
)
def test_random_tokens(
    *, gpu: torch.device, token_ids: list[int], index: torch.dtype, dtype: torch.dtype, hidden: int, given_memory: bool
) -> None:
    table = _table(17, hidden, dtype)
    around = torch.full((len(token_ids) + 2, hidden), torch.nan, dtype=dtype, device=gpu)
    ids = torch.tensor(token_ids, dtype=index)
    actual = embed(ids.to(gpu), table.to(gpu), around[1:-1] if given_memory else None)
    assert torch.equal(actual.cpu(), reference.embed(ids, table))
    if given_memory:
        assert actual.data_ptr() == around[1].data_ptr()
    assert around[0].isnan().all()
    assert around[-1].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_cpu(dtype: torch.dtype) -> None:
    table, ids = _table(17, 96, dtype), torch.tensor([3, -1, 16, 0, -1])
    out = torch.full((5, 96), torch.nan, dtype=dtype)
    assert torch.equal(embed(ids, table, out), reference.embed(ids, table))
    assert torch.equal(out, reference.embed(ids, table))


def test_no_tokens(gpu: torch.device) -> None:
    assert embed(torch.empty(0, dtype=torch.int64, device=gpu), torch.ones(3, 8, device=gpu)).shape == (0, 8)


def test_a_table_of_more_than_two_to_the_31_elements(gpu: torch.device) -> None:
    """Memory that is not touched takes no pages: only its last rows hold anything."""
    table = torch.empty((2**31 // 64 + 2, 64), dtype=torch.bfloat16, device=gpu)
    table[-2:] = _table(2, 64, torch.bfloat16).to(gpu)
    ids = torch.tensor([table.shape[0] - 1, table.shape[0] - 2, -1], device=gpu)
    expected = torch.stack((table[-1], table[-2], torch.zeros_like(table[-1])))
    assert torch.equal(embed(ids, table), expected)
