"""From a shape to a better one, step by step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations, product
from typing import NamedTuple

from kernels.gpu.tiles import TileShape

Costs = Callable[[Sequence[TileShape]], Sequence[float]]
"""What each shape costs; infinity if it cannot be used."""

_MOST = {"num_warps": 16, "num_stages": 6}
_GAIN = 0.01


class Found(NamedTuple):
    """``cost`` is the best shape's, ``before`` the first one's."""

    shape: TileShape
    cost: float
    before: float
    tried: int


def descend(start: TileShape, costs: Costs, *, goes_on: Callable[[], bool] = lambda: True) -> Found:
    """Move to the best neighbour while one is better by more than 1 %, the noise of measuring.

    First one number is changed at a time; where that helps no more, two.

    :param goes_on: asked before each round; False ends the search with what was found.
    :raises ValueError: the first shape cannot be used.
    """
    (before,) = costs([start])
    if math.isinf(before):
        raise ValueError(f"{dict(start)} cannot be used")
    best, cost, seen, changed = start, before, [dict(start)], 1
    while changed <= 2 and goes_on():
        new = [shape for shape in neighbours(best, changed) if shape not in seen]
        seen += new
        found = min(zip(costs(new), new, strict=True), key=lambda pair: pair[0], default=(math.inf, best))
        if found[0] < cost * (1 - _GAIN):
            cost, best = found
            changed = 1
        else:
            changed += 1
    return Found(best, cost, before, len(seen))


def neighbours(shape: TileShape, changed: int) -> list[dict[str, int]]:
    """Shapes with so many numbers changed: halved or doubled; stages by one."""
    steps = {key: _steps(key, value) for key, value in shape.items()}
    return [
        {**shape, **dict(zip(keys, values, strict=True))}
        for keys in combinations(shape, changed)
        for values in product(*(steps[key] for key in keys))
    ]


def _steps(key: str, value: int) -> list[int]:
    values = [value - 1, value + 1] if key == "num_stages" else [value // 2, value * 2]
    return [each for each in values if 1 <= each <= _MOST.get(key, math.inf)]
