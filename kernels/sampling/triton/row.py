"""How kernels read a request's row of ``parameters``, and where its scores are."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.sampling import rows

_WORDS = tl.constexpr(rows.ROW.itemsize // 4)
_FIELDS = {name: field[1] // 4 for name, field in (rows.ROW.fields or {}).items()}

FLAGS = tl.constexpr(_FIELDS["flags"])
INVERSE_TEMPERATURE = tl.constexpr(_FIELDS["inverse_temperature"])
TOP_K = tl.constexpr(_FIELDS["top_k"])
TOP_P = tl.constexpr(_FIELDS["top_p"])
LOG_MIN_P = tl.constexpr(_FIELDS["log_min_p"])
REPETITION_PENALTY = tl.constexpr(_FIELDS["repetition_penalty"])
FREQUENCY_PENALTY = tl.constexpr(_FIELDS["frequency_penalty"])
PRESENCE_PENALTY = tl.constexpr(_FIELDS["presence_penalty"])
MIN_TOKENS = tl.constexpr(_FIELDS["min_tokens"])
PROMPT_LENGTH = tl.constexpr(_FIELDS["prompt_length"])
SEED = tl.constexpr(_FIELDS["seed"])
RULES = tl.constexpr(_FIELDS["rules"])
COUNTS = tl.constexpr(_FIELDS["counts"])
ALLOWED = tl.constexpr(_FIELDS["allowed"])

GREEDY = tl.constexpr(rows.GREEDY)
TRUNCATES = tl.constexpr(rows.TRUNCATES)
PENALIZES = tl.constexpr(rows.PENALIZES)
ALLOWS = tl.constexpr(rows.ALLOWS)
ADJUSTS = tl.constexpr(rows.ADJUSTS)
IN_PROMPT = tl.constexpr(rows.IN_PROMPT)

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit  # type: ignore[untyped-decorator]
def integer(parameters: tl.tensor, row: tl.tensor, FIELD: tl.constexpr) -> tl.tensor:
    """An int32 of a row."""
    return tl.load(parameters + row.to(tl.int64) * _WORDS + FIELD)


@triton.jit  # type: ignore[untyped-decorator]
def number(parameters: tl.tensor, row: tl.tensor, FIELD: tl.constexpr) -> tl.tensor:
    """A float32 of a row."""
    return integer(parameters, row, FIELD).to(tl.float32, bitcast=True)


@triton.jit  # type: ignore[untyped-decorator]
def long(parameters: tl.tensor, row: tl.tensor, FIELD: tl.constexpr) -> tl.tensor:
    """An int64 of a row."""
    return tl.load((parameters + row.to(tl.int64) * _WORDS + FIELD).to(tl.pointer_type(tl.int64)))


@triton.jit  # type: ignore[untyped-decorator]
def own(parameters: tl.tensor, row: tl.tensor, FIELD: tl.constexpr) -> tl.tensor:
    """The int32 tensor of the row's own whose address a field holds."""
    return long(parameters, row, FIELD).to(tl.pointer_type(tl.int32))


@triton.jit  # type: ignore[untyped-decorator]
def poisoned_to_infinity(scores: tl.tensor) -> tl.tensor:
    """A NaN becomes +inf, which every maximum sees and which fails the row just as well."""
    return tl.where(scores != scores, float("inf"), scores)  # noqa: PLR0124 (only a NaN differs from itself)
