"""The tuner's search, its tables and its comparisons; measuring needs a GPU and is not tested here."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.tune.search import descend, neighbours
from benchmarks.gpu.tune.tables import adopt, text
from benchmarks.gpu.tune.trial import same
from kernels.gpu.tiles import TileShape

START = {"tile": 64, "num_warps": 4, "num_stages": 3}


def distance(best: TileShape) -> float:
    """Zero at one shape; each doubling away costs one."""
    return math.exp(
        abs(math.log2(best["tile"] / 256)) + abs(math.log2(best["num_warps"] / 2)) + abs(best["num_stages"] - 4)
    )


def test_the_search_goes_downhill_to_the_best_shape() -> None:
    found = descend(START, lambda shapes: [distance(shape) for shape in shapes])
    assert found.shape == {"tile": 256, "num_warps": 2, "num_stages": 4}
    assert found.cost == 1.0
    assert found.before == distance(START)


def test_a_step_of_two_numbers_crosses_a_ridge() -> None:
    def costs(shapes: Sequence[TileShape]) -> list[float]:
        # More warps pay only with a larger tile, and a larger tile only with more warps.
        better = {(64, 4): 2.0, (128, 8): 1.0}
        return [better.get((shape["tile"], shape["num_warps"]), 5.0) for shape in shapes]

    assert descend(START, costs).shape == {"tile": 128, "num_warps": 8, "num_stages": 3}


def test_what_cannot_be_used_is_left_alone_and_noise_changes_nothing() -> None:
    def costs(shapes: Sequence[TileShape]) -> list[float]:
        return [math.inf if shape["tile"] > 64 else 1.0 if shape == START else 0.995 for shape in shapes]

    found = descend(START, costs)
    assert found.shape == START
    assert found.tried > 1


def test_no_shape_is_asked_for_twice() -> None:
    asked: list[TileShape] = []

    def costs(shapes: Sequence[TileShape]) -> list[float]:
        asked.extend(shapes)
        return [distance(shape) for shape in shapes]

    found = descend(START, costs)
    assert len(asked) == len({tuple(sorted(shape.items())) for shape in asked}) == found.tried


def test_the_search_ends_when_time_is_up() -> None:
    rounds = iter([True, False])
    found = descend(START, lambda shapes: [distance(shape) for shape in shapes], goes_on=lambda: next(rounds))
    assert found.cost == distance(START) / math.e


def test_a_first_shape_that_cannot_be_used_is_an_error() -> None:
    with pytest.raises(ValueError, match="cannot be used"):
        descend(START, lambda shapes: [math.inf for _ in shapes])


def test_neighbours_stay_within_what_a_program_may_have() -> None:
    found = neighbours({"num_warps": 16, "num_stages": 1, "tile": 1}, 1)
    assert found == [
        {"num_warps": 8, "num_stages": 1, "tile": 1},
        {"num_warps": 16, "num_stages": 2, "tile": 1},
        {"num_warps": 16, "num_stages": 1, "tile": 2},
    ]


def test_adopted_shapes_are_those_of_the_capability_and_nothing_else_changes(tmp_path: Path) -> None:
    path = tmp_path / "norm" / "tiles.json"
    path.parent.mkdir()
    table = {"rows": {"80": {"w256": START, "w512": START}}, "other": {"80": {"any": {"block": 4}}}}
    path.write_text(text(table))
    better = {**START, "tile": 128}
    adopt({("norm", "rows", "w512"): better}, 90, tmp_path)
    changed = json.loads(path.read_text())
    assert changed["rows"].pop("90") == {"w512": better}
    assert changed == table
    assert '      "w512": {"tile": 64, "num_warps": 4, "num_stages": 3}\n' in path.read_text()


@pytest.mark.parametrize(
    ("result", "equal"),
    [
        (torch.tensor([1.0, 2.01]), True),
        (torch.tensor([1.0, 2.5]), False),
        (torch.tensor([1.0, math.nan]), False),
        ((torch.tensor([1.0, 2.0]),), False),
    ],
)
def test_results_may_differ_by_rounding(result: object, equal: bool) -> None:
    assert same(result, torch.tensor([1.0, 2.0])) is equal


def test_tokens_must_be_the_same_but_for_one_in_a_hundred() -> None:
    tokens = torch.arange(200)
    other = tokens.clone()
    other[:2] = -1
    assert same((tokens, other), (tokens, tokens))
    other[2] = -1
    assert not same((tokens, other), (tokens, tokens))
