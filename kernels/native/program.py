"""A forward pass recorded once and replayed: the CPU's counterpart of a CUDA graph.

Between two kernels Python allocates, checks and converts for some 20 microseconds, with caches that the kernels have
just emptied: a fifth of a step of one request. A replay makes the same calls, with the same addresses, from C++ and
without the GIL, so that the next step can be scheduled meanwhile.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kernels.native import library

_WORDS = 20
_ALIGNMENT = 64


class NotRecordable(ValueError):
    """A computation that a replay would not repeat."""


class Program:
    """Calls of compiled kernels, in order.

    They hold addresses, not tensors: whatever they read must stay where it is, and may change there between replays.

    :param compute: what to record: calls of compiled kernels, and views. It is run, so what it writes is written, if
        it cannot be recorded up to where that is found.
    :param arena: where the results of the calls lie; programs that do not run at the same time can share it.
    :ivar output: the result, until the next replay of any program in the arena.
    :raises NotRecordable: something in it is computed by torch, or by a kernel that cannot be recorded: a replay would
        pass on what that gave when it was recorded.
    """

    def __init__(self, compute: Callable[[], Tensor], arena: Arena) -> None:
        self._arena = arena
        self._calls = bytearray()
        watch = _NothingIsComputed()
        with library.recorded_by(self), watch:
            self.output = arena.unleased(compute())
        self._allocated = watch.allocated
        self._buffer = (ctypes.c_char * len(self._calls)).from_buffer(self._calls)

    def replay(self) -> Tensor:
        """Make all calls again; returns :attr:`output`."""
        size = struct.calcsize(f"{_WORDS + 1}Q")
        library.call_replay(ctypes.addressof(self._buffer), len(self._calls) // size)
        return self.output

    def add(self, kernel: library.Kernel, arguments: tuple[float | None, ...]) -> None:
        """Take down a call, while the program is the recorder."""
        if kernel.recordable is None:
            raise NotRecordable(f"{kernel.name} cannot be recorded")
        formats = "".join("f4x" if isinstance(argument, float) else "q" for argument in arguments)
        values = [0 if argument is None else argument for argument in arguments]
        self._calls += struct.pack(f"<Q{formats}{8 * (_WORDS - len(values))}x", kernel.recordable, *values)

    def empty(self, shape: tuple[int, ...], kind: torch.dtype) -> Tensor:
        """Memory for a result, while the program is the recorder."""
        return self._arena.empty(shape, kind)


_ALLOCATIONS = frozenset(
    f"aten::{name}"
    for name in ("empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided")
)


class _NothingIsComputed(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is active, torch makes views and allocates, and nothing else.

    :ivar allocated: what it allocated: recorded calls may hold addresses in it.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.allocated: list[Tensor] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: to be skipped, torch would import its compiler, which takes two seconds and 900 modules."""
        return False

    def __torch_dispatch__(
        self, operation: Any, _types: Any, arguments: tuple[Any, ...] = (), options: dict[str, Any] | None = None
    ) -> Any:
        options = options or {}
        with self:
            # In inference mode also operations arrive here that are made of others: contiguous(), which may copy.
            result = operation.decompose(*arguments, **options)
        if result is not NotImplemented:
            return result
        result = operation(*arguments, **options)
        if operation._schema.name in _ALLOCATIONS:
            self.allocated.append(result)
        elif not operation.is_view:
            raise NotRecordable(f"torch computes {operation} here: a replay would not repeat it")
        return result


class Arena:
    """Memory for the results of recorded calls.

    A tensor's memory is given out again once nothing refers to the tensor. That is right for a replay too, because it
    makes the calls in the same order.
    """

    def __init__(self, size: int) -> None:
        self._memory = np.empty(size + _ALIGNMENT, dtype=np.uint8)
        start = -self._memory.ctypes.data % _ALIGNMENT
        self._free = [(start, start + size)]  # sorted, none touching the next

    def empty(self, shape: tuple[int, ...], kind: torch.dtype) -> Tensor:
        """A tensor that is not cleared.

        :raises MemoryError: the arena is full.
        """
        size = -(-torch.Size(shape).numel() * kind.itemsize // _ALIGNMENT) * _ALIGNMENT
        for index, (start, end) in enumerate(self._free):
            if end - start >= size:
                self._free[index : index + 1] = [(start + size, end)] if end - start > size else []
                lease = _Lease(self, start, start + size)
                return torch.from_numpy(np.asarray(lease)).view(kind)[: torch.Size(shape).numel()].view(shape)
        raise MemoryError(f"the arena has no {size} bytes left")

    def unleased(self, tensor: Tensor) -> Tensor:
        """The same memory, free to be given out again."""
        start = tensor.data_ptr() - self._memory.ctypes.data
        return torch.from_numpy(self._memory[start : start + tensor.nbytes]).view(tensor.dtype).view(tensor.shape)

    def give_back(self, start: int, end: int) -> None:
        """Take back memory that was given out."""
        merged: list[tuple[int, int]] = []
        for low, high in sorted([*self._free, (start, end)]):
            if merged and merged[-1][1] == low:
                merged[-1] = (merged[-1][0], high)
            else:
                merged.append((low, high))
        self._free = merged

    def address(self, start: int) -> int:
        """Where a byte of the arena is."""
        return self._memory.ctypes.data + start


class _Lease:
    """A piece of an arena: numpy reads it as an array and keeps it for as long as any tensor lies in that array."""

    def __init__(self, arena: Arena, start: int, end: int) -> None:
        self._arena, self._start, self._end = arena, start, end
        self.__array_interface__ = {
            "data": (arena.address(start), False),
            "shape": (end - start,),
            "typestr": "|u1",
            "version": 3,
        }

    def __del__(self) -> None:
        self._arena.give_back(self._start, self._end)
