"""One call of a public function of ``kernels``, as the engine would make it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn, "fp32": torch.float32}


HOPPER = (90,)


class Demand(NamedTuple):
    """What one kernel's code must have.

    :ivar streamed: bytes that a program loads in each round of its loop, all by loads of 16 bytes: so many for each
        element of the tile, whose ``sides`` are entries of the shape that ``kernels/<op>/tiles.json`` has for
        ``kernel``; 0: nothing is demanded.
    :ivar matrix: whether it must multiply with the matrix instructions of the device's own kind.
    :ivar least: the capability from which the loads are demanded: the engine has no float8 caches on devices that have
        no float8, and the kernels, which serve them all the same, take such values apart first.
    """

    kernel: str = ""
    sides: tuple[str, ...] = ("tile",)
    streamed: int = 0
    matrix: bool = False
    least: int = 80


class Case(NamedTuple):
    """``call`` launches the operation's kernels on tensors of which only shape, dtype, strides and alignment count.

    The name is short and stays: it is a key of the committed table. ``demands`` are by the name of the kernel's
    function. ``capabilities``: what it is compiled for; every dtype and size of head is for all of them, what differs
    from these in little is for Hopper alone, since all of it would take minutes.
    """

    operation: str
    name: str
    call: Callable[[], object]
    demands: Mapping[str, Demand] = {}
    capabilities: tuple[int, ...] = (80, 90, 100)
