"""Products of few rows with a model's weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import torch

from benchmarks.gpu.compiled.case import DTYPES, Case, Demand
from kernels.activation import GatedKind
from kernels.linear import EXACT

_DEPTH = 4096
_COLUMNS = {"narrow": 4096, "wide": 12_288}


def cases() -> Iterator[Case]:
    """One row and several, narrow weights, whose depth is split, and wide ones, plain and gated."""
    for rows in (1, 16):
        for name, columns in _COLUMNS.items():
            for kind in ("bf16", "fp16") if name == "wide" else ("bf16", "fp32"):
                yield _product(f"{kind} {name} {rows}", DTYPES[kind], rows, columns)
            yield _gated(f"bf16 {name} {rows} gated", rows, columns, "silu")
        for kind in get_args(GatedKind)[1:]:
            yield _gated(f"bf16 narrow {rows} gated {kind}", rows, _COLUMNS["narrow"], kind)
        yield _logits(rows)


def _product(name: str, dtype: torch.dtype, rows: int, columns: int) -> Case:
    def call() -> object:
        weight = EXACT.weight(torch.empty(columns, _DEPTH, dtype=dtype))
        residual = torch.empty(rows, columns, dtype=dtype)
        return weight.multiply(torch.empty(rows, _DEPTH, dtype=dtype), torch.empty(columns, dtype=dtype), residual)

    return Case("linear", name, call, _demands(rows, dtype.itemsize))


def _gated(name: str, rows: int, columns: int, kind: GatedKind) -> Case:
    def call() -> object:
        weight = EXACT.gated(torch.empty(2 * columns, _DEPTH, dtype=torch.bfloat16), has_bias=False, kind=kind)
        return weight.multiply(torch.empty(rows, _DEPTH, dtype=torch.bfloat16))

    return Case("linear", name, call, _demands(rows, 2 * 2, "gated_"))


def _logits(rows: int) -> Case:
    def call() -> object:
        weight = EXACT.weight(torch.empty(_COLUMNS["wide"], _DEPTH, dtype=torch.bfloat16))
        return weight.multiply(torch.empty(rows, _DEPTH, dtype=torch.bfloat16), wide=True)

    return Case("linear", f"bf16 wide {rows} to fp32", call, _demands(rows, 2))


def _demands(rows: int, streamed: int, kind: str = "") -> dict[str, Demand]:
    name = "row" if rows == 1 else "rows"
    return {f"_{name}": Demand(f"{kind}{name}", ("block_n", "block_k"), streamed)}
