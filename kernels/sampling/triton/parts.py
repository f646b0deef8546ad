"""Cutting rows into parts, a program for each: as many as keep all multiprocessors busy, and not many more, because
programs of rows that ask for nothing still have to start."""

from __future__ import annotations

from typing import NamedTuple

import triton

from kernels.gpu import Device

MOST_PARTS = 128
"""So many at most, so that what looks at all parts of a row is compiled for this many, not for each batch size anew."""


class Parts(NamedTuple):
    """``number`` parts per row of ``tiles`` tiles each; the last may have fewer."""

    number: int
    tiles: int


def cut(rows: int, tiles: int, device: Device, programs_per_multiprocessor: int) -> Parts:
    """The parts of ``rows`` rows of ``tiles`` tiles each."""
    wanted = max(1, triton.cdiv(device.multiprocessors * programs_per_multiprocessor, rows))
    tiles_of_part = triton.cdiv(tiles, min(tiles, wanted, MOST_PARTS))
    return Parts(triton.cdiv(tiles, tiles_of_part), tiles_of_part)
