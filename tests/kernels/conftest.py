"""One thread, because threads that wait for each other over tiny operations take seconds on a busy machine; and the
device that Triton forms are tested on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from kernels.gpu import Device, standing_in


@pytest.fixture(autouse=True, scope="package")
def single_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """Where Triton forms run: a GPU if there is one, else the CPU under Triton's interpreter, an H200 standing in."""
    if torch.cuda.is_available():
        yield torch.device("cuda")
        return
    _let_the_interpreter_multiply_bfloat16(monkeypatch)
    with standing_in(Device(90, 132)):
        yield torch.device("cpu")


def _let_the_interpreter_multiply_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy has no bfloat16: the interpreter (Triton 3.6 to 3.9) holds its bits in uint16, and ``tl.dot`` multiplies
    these as whole numbers. Multiplied as float32 they give what a tensor core gives: products are exact, sums float32.
    """
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder

    multiply = InterpreterBuilder.create_dot

    def create_dot(builder: Any, a: Any, b: Any, *terms: Any) -> Any:
        a, b = (builder.cast_impl(side, tl.float32) if side.dtype.scalar == tl.bfloat16 else side for side in (a, b))
        return multiply(builder, a, b, *terms)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)
