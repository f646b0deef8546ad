"""A row of the table, and how its figures come about: one kernel, compiled for one device."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from benchmarks.gpu.compiled.case import Case
from benchmarks.gpu.compiled.cases import all_cases
from kernels.gpu import Device
from kernels.gpu.compile_only import compiling_for
from kernels.gpu.inspection import Code, inspect

CAPABILITIES = {80: 108, 90: 132, 100: 148}
"""Multiprocessors of an A100, an H200 and a B200, by compute capability."""


class Key(NamedTuple):
    operation: str
    case: str
    kernel: str
    capability: int


class Row(NamedTuple):
    """``shared`` in bytes per program."""

    key: Key
    num_warps: int
    num_stages: int
    shared: int
    code: Code


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
    with compiling_for(Device(capability, CAPABILITIES[capability])) as launched:
        case.call()
    rows: dict[str, Row] = {}
    for launch in {each.cubin: each for each in launched}.values():
        name = launch.name if launch.name not in rows else f"{launch.name} ({len(rows) + 1})"
        key = Key(case.operation, case.name, name, capability)
        rows[name] = Row(key, launch.num_warps, launch.num_stages, launch.shared, inspect(launch.cubin))
    return list(rows.values())


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
        Work(operation, name, capability)
        for operation, name in all_cases()
        if not wanted or operation in wanted
        for capability in capabilities
    ]


def _compile(work: Work) -> list[Row] | Failure:
    try:
        return compiled(_cases()[work.operation, work.case], work.capability)
    except Exception as error:
        return Failure(*work, f"{type(error).__name__}: {error}")


@cache
def _cases() -> dict[tuple[str, str], Case]:
    return all_cases()
