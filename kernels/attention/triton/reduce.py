# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="untyped-decorator"
"""Adding up what the programs found that shared a decode's context.

Reads ``splits × (head_dim + 1)`` float32 for each query head and writes ``head_dim`` elements, all in one step.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.attention.triton.softmax import LOG2E, LOWEST, inverse, with_sink
from kernels.attention.triton.splits import split_length, visible_from


@triton.jit
def reduce_kernel(output, partial, peaks, sinks, query_starts, context_lengths, split_tokens, C: tl.constexpr):
    """One query head of one sequence, all its splits in one load; grid ``(sequences, heads)``.

    Splits that the context did not need were never written and are not read.
    """
    sequence, head = tl.program_id(0), tl.program_id(1)
    heads: tl.constexpr = C.kv_heads * C.group
    token = tl.load(query_starts + sequence).to(tl.int64)
    if tl.load(query_starts + sequence + 1) == token:
        return
    context = tl.load(context_lengths + sequence)
    span = context - visible_from(context, C) // C.tile * C.tile
    used = tl.cdiv(span, split_length(split_tokens, span, C))

    split = tl.arange(0, C.splits)
    dim = tl.arange(0, C.padded_dim)
    cell = (sequence.to(tl.int64) * heads + head) * C.splits + split
    parts = tl.load(
        partial + cell[:, None] * C.head_dim + dim[None, :],
        mask=(split < used)[:, None] & (dim < C.head_dim)[None, :],
        other=0.0,
    )
    peaks_found = tl.load(peaks + cell, mask=split < used, other=float("-inf"))
    peak = tl.maximum(tl.max(peaks_found, 0), LOWEST)
    weights = tl.exp2(peaks_found - peak)
    acc = tl.sum(parts * weights[:, None], 0)
    total = tl.sum(weights, 0)
    if C.sinks:
        fade, total = with_sink(peak, total, tl.load(sinks + head) * LOG2E)
        acc = acc * fade
    result = acc * inverse(total)
    tl.store(output + (token * heads + head) * C.head_dim + dim, result, mask=dim < C.head_dim)
