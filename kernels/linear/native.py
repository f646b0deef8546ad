"""Products by the compiled kernels: panels of 32 columns, 12 rows at a time (``kernels/native/src/linear.cpp``).

An output is summed over the inputs in one fixed order, so it is the same, bit by bit, in a batch of any size. Measured
on 2 cores of an AMD Zen 5 with AVX512-BF16 and VNNI, whose registers alone reach 840 GFLOP/s in bfloat16 and about
1,600 GOP/s in int8; 1024 → 5632, weights from memory:

====== ================ ================== ==============
tokens bf16 ms          int8 ms            int8 GOP/s
====== ================ ================== ==============
1      0.27 (43 GB/s)   0.12 (49 GB/s)     98
16     0.33             0.20               940
64     0.92 (800 GF/s)  0.55               1350
512    7.5 (790 GF/s)   4.8                1230
====== ================ ================== ==============
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.native import library

_PANEL = 32
_LANES = 16
_PANELS_AT_ONCE = 16


def can_pack(weight: Tensor) -> bool:
    """Whether the compiled kernels multiply with this weight."""
    # Two bfloat16 values make a word.
    return library.supports(weight) and weight.shape[1] % 2 == 0


def can_pack_int8(weight: Tensor) -> bool:
    """Whether the compiled kernels multiply with this weight in int8."""
    return library.supports(weight) and weight.shape[1] % 4 == 0


def check_input(x: Tensor, depth: int, dtype: torch.dtype) -> None:
    """:raises ValueError: a compiled product would read what is not there."""
    if x.shape[1] != depth or x.dtype != dtype or not x.is_contiguous():
        raise ValueError(f"x is {x.dtype} {list(x.shape)}; contiguous {dtype} [*, {depth}] is needed")


class _Packed:
    """What both layouts share: a block of memory and the function that multiplies with it."""

    kind = ""

    def __init__(self, memory: Tensor, shape: torch.Size, dtype: torch.dtype) -> None:
        self._memory = memory
        self.nbytes = memory.nbytes
        self.address = memory.data_ptr()
        self._columns, self._depth = shape
        self._dtype = dtype
        self._multiply = library.function(f"linear{self.kind}", dtype)
        self._multiply_wide = library.mixed_function(f"linear{self.kind}", dtype, torch.float32)

    def multiply(
        self, x: Tensor, bias: Tensor | None = None, residual: Tensor | None = None, *, wide: bool = False
    ) -> Tensor:
        """See :class:`kernels.linear.Weight`."""
        rows = x.shape[0]
        check_input(x, self._depth, self._dtype)
        out = library.result((rows, self._columns), torch.float32 if wide else self._dtype)
        (self._multiply_wide if wide else self._multiply)(
            x.data_ptr(),
            rows,
            self._depth,
            self._columns,
            self.address,
            None if bias is None else bias.data_ptr(),
            None if residual is None else residual.data_ptr(),
            out.data_ptr(),
        )
        return out


class PackedWeight(_Packed):
    """A weight of float32 or bfloat16 in panels."""

    def __init__(self, weight: Tensor) -> None:
        columns, depth = weight.shape
        memory = self.memory(columns, depth, weight.dtype)[0]
        self.pack(weight, memory)
        super().__init__(memory, weight.shape, weight.dtype)

    @staticmethod
    def memory(columns: int, depth: int, dtype: torch.dtype, count: int = 1) -> Tensor:
        """Memory for so many packed weights, ``[count, …]``."""
        return _memory(count, _padded(columns) * depth, dtype)

    @staticmethod
    def pack(weight: Tensor, memory: Tensor) -> None:
        """Write a weight to memory for one."""
        source = weight.contiguous()
        library.function("pack", weight.dtype)(source.data_ptr(), *weight.shape, memory.data_ptr())

    @classmethod
    def pack_gated(cls, weight: Tensor, memory: Tensor) -> None:
        """Write ``[2 * intermediate, in_features]``, the gate's half first, to memory for one: in each panel 16 rows of
        the gate and the 16 that they scale. Some panels at a time, for there is no room for a second model."""
        depth = weight.shape[1]
        for panel in range(0, weight.shape[0] // _PANEL, _PANELS_AT_ONCE):
            piece = _interleaved(weight, slice(panel, panel + _PANELS_AT_ONCE))
            cls.pack(piece, memory[panel * _PANEL * depth :][: piece.numel()])


class Int8Weight(_Packed):
    """A weight rounded to int8, in panels, followed by each column's scale and the correction for unsigned inputs."""

    kind = "_int8"

    def __init__(self, weight: Tensor) -> None:
        columns, depth = weight.shape
        memory = self.memory(columns, depth, weight.dtype)[0]
        self.pack(weight, memory)
        super().__init__(memory, weight.shape, weight.dtype)

    @staticmethod
    def memory(columns: int, depth: int, _: torch.dtype, count: int = 1) -> Tensor:
        """See :meth:`PackedWeight.memory`."""
        return _memory(count, _padded(columns) * (depth + 8), torch.int8)

    @staticmethod
    def pack(weight: Tensor, memory: Tensor) -> None:
        """See :meth:`PackedWeight.pack`."""
        source = weight.contiguous()
        library.function("pack_int8", weight.dtype)(source.data_ptr(), *weight.shape, memory.data_ptr())

    @classmethod
    def pack_gated(cls, weight: Tensor, memory: Tensor) -> None:
        """See :meth:`PackedWeight.pack_gated`; all panels at once, for the scales of all come after them."""
        cls.pack(_interleaved(weight, slice(None)), memory)


def _interleaved(weight: Tensor, panels: slice) -> Tensor:
    halves = weight.view(2, -1, _LANES, weight.shape[1])[:, panels]
    return halves.transpose(0, 1).reshape(-1, weight.shape[1])


def _memory(count: int, size: int, dtype: torch.dtype) -> Tensor:
    memory = torch.empty(count, size, dtype=dtype)
    library.huge_pages(memory)
    return memory


def _padded(columns: int) -> int:
    return -(-columns // _PANEL) * _PANEL
