"""All cases, by operation."""

from __future__ import annotations

from benchmarks.gpu.compiled.case import Case
from benchmarks.gpu.compiled.cases import attention, elementwise, latent, linear, moe, sampling, tokens

_SOURCES = (attention, elementwise, latent, linear, moe, sampling, tokens)


def all_cases() -> dict[tuple[str, str], Case]:
    """Every case by operation and name, in the order of the table."""
    found = {(case.operation, case.name): case for source in _SOURCES for case in source.cases()}
    return dict(sorted(found.items(), key=lambda item: item[0][0]))
