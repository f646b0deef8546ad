# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="untyped-decorator"
"""Which part of a decode's context each of the programs takes that share it."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def visible_from(context, C):
    """The first token that the last one sees."""
    return 0 if C.window is None else tl.maximum(context - C.window, 0)


@triton.jit
def split_length(split_tokens, span, C):
    """Tokens of each split, a multiple of the tile. A window shorter than other layers' contexts is divided evenly."""
    length = tl.cdiv(tl.maximum(tl.load(split_tokens), 1), C.tile) * C.tile
    if C.window is not None:
        length = tl.minimum(length, tl.maximum(tl.cdiv(tl.cdiv(span, C.splits), C.tile), 1) * C.tile)
    return length
