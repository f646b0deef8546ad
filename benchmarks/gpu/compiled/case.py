"""One call of a public function of ``kernels``, as the engine would make it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn, "fp32": torch.float32}


class Case(NamedTuple):
    """``call`` launches the operation's kernels on tensors of which only shape, dtype, strides and alignment count.

    The name is short and stays: it is a key of the committed table.
    """

    operation: str
    name: str
    call: Callable[[], object]
