"""What a shape costs: compiled first, then compared, then measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu.timing import Timer
from benchmarks.gpu.tune.workloads import Workload, workloads
from kernels.gpu import Device, trying
from kernels.gpu.tiles import Entry, TileShape, noting

_RELATIVE, _ABSOLUTE = 2e-2, 2e-2
"""Sums in another order differ by so much in bfloat16."""
_EQUAL = 0.99
"""So many of the tokens chosen must be the same: a sum in another order can move the edge of a top-p."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Measures shapes of one entry on the workloads that use it.

    :ivar device: the GPU as the kernels see it, to compile for.
    :ivar pool: processes that compile; what they did is in Triton's cache for this one.
    """

    entry: Entry
    works: Sequence[Workload]
    device: Device
    timer: Timer
    pool: Executor
    say: Callable[[str], None]

    def costs(self, shapes: Sequence[TileShape]) -> list[float]:
        """Sums of the logarithms of the workloads' times, so that each counts by its ratio; infinity for a shape that
        does not compile, spills in loops more than the first did, or gives another result."""
        names = tuple(work.name for work in self.works)
        jobs = [_Job(self.entry, shape, names, self.device) for shape in (None, *map(dict, shapes))]
        allowed, *spills = self.pool.map(_hot_spills, jobs)
        if allowed is None:
            raise ValueError(f"{' '.join(self.entry)} does not compile as it is")
        return [
            math.inf if count is None or count > allowed else self._cost(shape)
            for shape, count in zip(shapes, spills, strict=True)
        ]

    def _cost(self, shape: TileShape) -> float:
        total = 0.0
        try:
            for work in self.works:
                expected = fresh(work)()
                with trying(*self.entry, shape):
                    if not same(fresh(work)(), expected):
                        self.say(f"{self.entry} {dict(shape)}: another result on {work.name}")
                        return math.inf
                    total += math.log(self.timer.measure(fresh(work)).median)
        except Exception as error:
            self.say(f"{self.entry} {dict(shape)}: {type(error).__name__}: {str(error)[:200]}")
            return math.inf
        return total


def fresh(work: Workload) -> Callable[[], object]:
    """The workload with the same inputs as every time, some of which it may change."""
    torch.manual_seed(0)
    return work.prepare(torch.device("cuda"))


def used_entries(works: Sequence[Workload], device: Device, pool: Executor) -> Mapping[Entry, list[Workload]]:
    """The entries of tables that workloads use, in the workloads' order, with the workloads that use them. What cannot
    be compiled uses none."""
    entries: dict[Entry, list[Workload]] = {}
    for work, used in zip(works, pool.map(_entries, [(work[:2], device) for work in works]), strict=True):
        for entry in used:
            entries.setdefault(entry, []).append(work)
    return entries


def same(result: object, expected: object) -> bool:
    """Whether two results are equal but for the order of sums."""
    if isinstance(result, tuple) and isinstance(expected, tuple):
        return all(same(one, other) for one, other in zip(result, expected, strict=True))
    if not isinstance(result, Tensor) or not isinstance(expected, Tensor):
        return result == expected
    if not result.is_floating_point():
        return bool((result == expected).float().mean() >= _EQUAL)
    return torch.allclose(result.float(), expected.float(), rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True)


class _Job(NamedTuple):
    """What to compile: workloads with a shape for an entry; None: with the table's."""

    entry: Entry
    shape: TileShape | None
    names: tuple[str, ...]
    device: Device


def _entries(asked: tuple[tuple[str, str], Device]) -> list[Entry]:
    from kernels.gpu.compile_only import compiling_for  # noqa: PLC0415 - replaces Triton's driver

    key, device = asked
    with noting() as noted, suppress(Exception), compiling_for(device):
        _by_name()[key].prepare(torch.device("cpu"))()
    return list(noted)


def _hot_spills(job: _Job) -> int | None:
    """Accesses to local memory in loops of all that the workloads launch; None if one cannot be compiled. For a process
    that computes nothing itself."""
    from kernels.gpu.compile_only import compiling_for  # noqa: PLC0415 - replaces Triton's driver
    from kernels.gpu.inspection import inspect  # noqa: PLC0415

    chosen: AbstractContextManager[None] = nullcontext() if job.shape is None else trying(*job.entry, job.shape)
    try:
        with compiling_for(job.device) as launched, chosen:
            for name in job.names:
                _by_name()[job.entry[0], name].prepare(torch.device("cpu"))()
            return sum(inspect(launch.cubin).hot_spills for launch in launched)
    except Exception:
        return None


@cache
def _by_name() -> dict[tuple[str, str], Workload]:
    return {(work.operation, work.name): work for work in workloads()}
