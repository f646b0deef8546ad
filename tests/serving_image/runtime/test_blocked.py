"""Two-level searches find what plain searches find."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serving_image.runtime.blocked import first_best, locate, top

_COLUMNS = st.sampled_from([1, 2, 127, 128, 129, 256, 1000, 5000])
_SEED = st.integers(0, 2**31)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(_COLUMNS, _SEED, st.integers(1, 9))
def test_the_first_of_the_best(columns: int, seed: int, distinct: int) -> None:
    """Few distinct values, so that there are ties."""
    values = torch.randint(distinct, (6, columns), generator=torch.Generator().manual_seed(seed)).float()
    located = first_best(values)
    assert located.found.all()
    assert located.columns.tolist() == [each.index(max(each)) for each in values.tolist()]


def test_nothing_best() -> None:
    values = torch.zeros(4, 300)
    values[0, 299], values[1, 5], values[2] = math.nan, math.inf, -math.inf
    assert first_best(values).found.tolist() == [False, False, False, True]
    assert first_best(values).columns.tolist() == [0, 0, 0, 0]


@settings(deadline=None, max_examples=40, derandomize=True)
@given(_COLUMNS, _SEED, st.floats(0, 1, exclude_max=True), st.sampled_from([0.0, 0.5, 0.99]))
def test_where_the_running_sum_passes_a_fraction(columns: int, seed: int, fraction: float, zeros: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(3, columns, generator=generator) ** 8
    weights[torch.rand(3, columns, generator=generator) < zeros] = 0
    located = locate(weights, torch.full((3, 1), fraction, dtype=torch.float64))
    for row, column, found in zip(weights.tolist(), located.columns.tolist(), located.found.tolist(), strict=True):
        total = math.fsum(row)
        assert found == (total > 0)
        if found:
            assert row[column] > 0
            assert math.fsum(row[:column]) <= fraction * total * (1 + 1e-12)
            assert math.fsum(row[: column + 1]) >= fraction * total * (1 - 1e-12)


def test_even_fractions_find_every_column_in_proportion() -> None:
    weights = torch.tensor([3.0, 0.0, 1.0, 4.0, 1e-30, 2.0])
    fractions = (torch.arange(1000, dtype=torch.float64)[:, None] + 0.5) / 1000
    columns = locate(weights.expand(1000, -1), fractions).columns
    assert columns.bincount(minlength=6).tolist() == [300, 0, 100, 400, 0, 200]


def test_the_ends_of_the_interval() -> None:
    weights = torch.zeros(2, 400)
    weights[:, 150], weights[:, 390] = 1e-12, 1.0
    weights[:, 200] = 1.0
    ends = torch.tensor([[0.0], [1 - 2**-53]], dtype=torch.float64)
    assert locate(weights, ends).columns.tolist() == [150, 390]


def test_a_fraction_that_rounds_past_its_block_finds_the_last_weight_there() -> None:
    """Thousands of rows whose weights fill half a block and whose threshold is a rounding error below the total."""
    weights = torch.zeros(4000, 128)
    weights[:, :64] = torch.rand(4000, 64, generator=torch.Generator().manual_seed(6)) ** 30
    located = locate(weights, torch.full((4000, 1), 1 - 2**-53, dtype=torch.float64))
    assert (weights.gather(1, located.columns[:, None]) > 0).all()


def test_a_tiny_weight_is_not_lost_beside_large_ones() -> None:
    """Sums in float32 would swallow the one in the middle, so that no fraction could find it."""
    weights = torch.zeros(1, 400)
    weights[0, [0, 200, 390]] = torch.tensor([1.0, 1e-10, 1.0])
    fraction = torch.tensor([[(1 + 0.5e-10) / (2 + 1e-10)]], dtype=torch.float64)
    assert locate(weights, fraction).columns.tolist() == [200]


def test_rows_without_weight_or_with_nan_find_nothing() -> None:
    weights = torch.ones(3, 200)
    weights[0], weights[1, 130] = 0.0, math.nan
    located = locate(weights, torch.full((3, 1), 0.5, dtype=torch.float64))
    assert located.found.tolist() == [False, False, True]
    assert located.columns.tolist() == [0, 0, 100]


@settings(deadline=None, max_examples=40, derandomize=True)
@given(_COLUMNS, _SEED, st.integers(0, 30))
def test_the_greatest_values(columns: int, seed: int, count: int) -> None:
    count = min(count, columns)
    values = torch.randn(4, columns, generator=torch.Generator().manual_seed(seed))
    best = top(values, count)
    assert torch.equal(best.values, values.sort(dim=1, descending=True).values[:, :count])
    assert torch.equal(values.gather(1, best.columns), best.values)


def test_the_greatest_of_many_equal_values_are_different_columns() -> None:
    best = top(torch.zeros(2, 5000), 7)
    assert all(len(set(columns)) == 7 for columns in best.columns.tolist())
