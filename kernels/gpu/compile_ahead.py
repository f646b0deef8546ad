"""Compiling kernels before they are needed, side by side.

A kernel takes Triton about a second, most of it in LLVM and the assembler, outside the interpreter's lock; one after
another, what a first request needs takes several times as long as side by side.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import triton
from triton.runtime.jit import JITFunction


@contextmanager
def compiling_ahead() -> Iterator[None]:
    """Within the block, launches of Triton forms only say what is to be compiled; it is when the block ends.

    Nothing they would write is written, so nothing may depend on it there. Under Triton's interpreter nothing is
    compiled and launches compute as ever.

    :raises Exception: at the end, what the compiler raised.
    """
    run = JITFunction.run

    def note(function: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:  # noqa: ARG001
        return run(function, *args, grid=grid, warmup=True, **options)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads, triton.AsyncCompileMode(threads):
        JITFunction.run = note
        try:
            yield
        finally:
            JITFunction.run = run
