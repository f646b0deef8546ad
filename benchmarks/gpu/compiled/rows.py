"""A row of the table, and how its figures come about: one kernel, compiled for one device."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import cache
from math import prod
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from benchmarks.gpu.compiled.case import HOPPER, Case, Demand
from benchmarks.gpu.compiled.cases import all_cases
from kernels.gpu import Device
from kernels.gpu.compile_only import compiling_for
from kernels.gpu.inspection import Code, inspect
from kernels.gpu.tiles import Entry, TileShape, noting

CAPABILITIES = {80: 108, 90: 132, 100: 148}
"""Multiprocessors of an A100, an H200 and a B200, by compute capability."""


_ALSO = frozenset(f"{kernel} {kind} d128" for kernel in ("decode", "prefill") for kind in ("bf16", "fp8"))


class Key(NamedTuple):
    operation: str
    case: str
    kernel: str
    capability: int


class Row(NamedTuple):
    """``shared`` in bytes per program. ``streamed``: bytes that a program must load by 16 at a time in each round of
    its loop. ``needs_matrix``: whether it must have the device's own matrix instructions."""

    key: Key
    num_warps: int
    num_stages: int
    shared: int
    code: Code
    streamed: int = 0
    needs_matrix: bool = False


class Failure(NamedTuple):
    """What one case could not be compiled for."""

    operation: str
    case: str
    capability: int
    error: str


class Work(NamedTuple):
    operation: str
    case: str
    capability: int


class Compiled(NamedTuple):
    """What came of some work."""

    rows: list[Row]
    failures: list[Failure]

    def write(self, path: Path) -> None:
        """As JSON."""
        rows = [{**row._asdict(), "key": row.key._asdict(), "code": asdict(row.code)} for row in self.rows]
        path.write_text(json.dumps({"rows": rows, "failures": [failure._asdict() for failure in self.failures]}))

    @classmethod
    def read(cls, path: Path) -> Compiled:
        content = json.loads(path.read_text())
        rows = [Row(**{**row, "key": Key(**row["key"]), "code": Code(**row["code"])}) for row in content["rows"]]
        return cls(rows, [Failure(**failure) for failure in content["failures"]])


def compiled(case: Case, capability: int) -> list[Row]:
    """The kernels that a call launches, each once, in order."""
    with compiling_for(Device(capability, CAPABILITIES[capability])) as launched, noting() as shapes:
        case.call()
    rows: dict[str, Row] = {}
    for launch in {each.cubin: each for each in launched}.values():
        name = launch.name if launch.name not in rows else f"{launch.name} ({len(rows) + 1})"
        key = Key(case.operation, case.name, name, capability)
        demand = case.demands.get(launch.name, Demand())
        streamed = demand.streamed * _tile(demand, shapes) if demand.streamed and capability >= demand.least else 0
        code = inspect(launch.cubin)
        rows[name] = Row(key, launch.num_warps, launch.num_stages, launch.shared, code, streamed, demand.matrix)
    return list(rows.values())


def _tile(demand: Demand, shapes: Mapping[Entry, TileShape]) -> int:
    return max(
        prod(shape[side] for side in demand.sides)
        for (_, kernel, _), shape in shapes.items()
        if kernel == demand.kernel
    )


def compile_all(works: Sequence[Work], workers: int) -> Compiled:
    """All of it, in the order of ``works``, in ``workers`` processes."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        outcomes = list(pool.map(_compile, works, chunksize=4))
    rows = [row for outcome in outcomes if not isinstance(outcome, Failure) for row in outcome]
    return Compiled(rows, [outcome for outcome in outcomes if isinstance(outcome, Failure)])


def all_work(operations: Iterable[str] = (), capabilities: Iterable[int] = tuple(CAPABILITIES)) -> list[Work]:
    """Every case for every device; only these operations if any are named."""
    wanted = set(operations)
    return [
        Work(case.operation, case.name, capability)
        for case in all_cases().values()
        if not wanted or case.operation in wanted
        for capability in capabilities
        if capability in case.capabilities
    ]


def sample() -> list[Work]:
    """What the tests compile anew, to hold against the committed table: one case of each operation, of attention each
    kernel's, and for Hopper every fifth besides. All of it takes 6 minutes on two cores."""
    first = dict(reversed(all_cases()))
    fifth = set(list(all_cases())[::5])
    return [
        work
        for work in all_work()
        if first[work.operation] == work.case
        or work.case in _ALSO
        or (work.capability in HOPPER and (work.operation, work.case) in fifth)
    ]


def _compile(work: Work) -> list[Row] | Failure:
    try:
        return compiled(_cases()[work.operation, work.case], work.capability)
    except Exception as error:
        return Failure(*work, _reason(error))


def _reason(error: BaseException) -> str:
    """Triton shows the source first and the reason last."""
    cause = f" from {_reason(error.__cause__)}" if error.__cause__ else ""
    return f"{type(error).__name__}: {str(error)[-400:]}{cause}"


@cache
def _cases() -> dict[tuple[str, str], Case]:
    return all_cases()
