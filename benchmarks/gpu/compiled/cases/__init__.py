"""All cases, by operation."""

from __future__ import annotations

from benchmarks.gpu.compiled.case import Case
from benchmarks.gpu.compiled.cases import attention, elementwise, linear, tokens

_SOURCES = (attention.cases, elementwise.cases, linear.cases, tokens.cases)


def all_cases() -> dict[tuple[str, str], Case]:
    """Every case by operation and name, in the order of the table."""
    found = {(case.operation, case.name): case for source in _SOURCES for case in source()}
    return dict(sorted(found.items(), key=lambda item: item[0][0]))
