"""A driver that compiles whatever is launched for a GPU that is not there, and runs nothing.

The public functions of ``kernels`` are called as ever, so what is compiled is what would be launched: with the same
constants, alignment of pointers and tile shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from kernels.gpu.device import Device, standing_in

SHARED_MEMORY = {80: 166_912, 90: 232_448, 100: 232_448}
"""Bytes of shared memory that one program may use, by compute capability (CUDA C programming guide, table of technical
specifications)."""


class Launched(NamedTuple):
    """One launch that would have been. ``shared`` is in bytes; ``cubin`` the machine code, an ELF file."""

    name: str
    grid: tuple[int, int, int]
    num_warps: int
    num_stages: int
    shared: int
    cubin: bytes


class _Driver:
    """The part of Triton's driver that a launch needs. ``launched`` is emptied by whoever reads it."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.utils = self
        self.launched: list[Launched] = []

    def load_binary(self, _name: str, binary: bytes, _shared: int, _device: int) -> tuple[int, bytes, int, int, int]:
        """Module, function, registers, spills, most threads: as if loaded. The machine code stands for the function."""
        return 1, binary, 0, 0, 1024

    def unload_module(self, _module: int) -> None:
        """Nothing was loaded."""

    def get_device_properties(self, _device: int) -> dict[str, int]:
        return {
            "max_shared_mem": SHARED_MEMORY[self._device.capability],
            "multiprocessor_count": self._device.multiprocessors,
            "max_num_regs": 65_536,
            "warpSize": 32,
        }

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._device.capability, 32)

    def get_current_device(self) -> int:
        """An index of its own for each capability: Triton keeps what it compiled by device."""
        return self._device.capability

    def set_current_device(self, _device: int) -> None:
        """There is one."""

    def get_current_stream(self, _device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def launcher_cls(self, _source: Any, metadata: Any) -> Callable[..., None]:
        """What a compiled kernel is launched through."""

        def launch(x: int, y: int, z: int, _stream: int, function: bytes, *_rest: Any) -> None:
            self.launched.append(
                Launched(metadata.name, (x, y, z), metadata.num_warps, metadata.num_stages, metadata.shared, function)
            )

        return launch


@cache
def _driver(device: Device) -> _Driver:
    """One for each device: Triton keeps a compiled kernel with the driver that it was first launched through."""
    return _Driver(device)


@contextmanager
def compiling_for(device: Device) -> Iterator[list[Launched]]:
    """Compile for ``device`` whatever Triton forms are launched on CPU tensors; yields the launches, as they come.

    For a process of its own, in which ``TRITON_INTERPRET`` is not set: Triton keeps the driver afterwards.

    :raises triton.runtime.errors.OutOfResources: at a launch of what needs more shared memory than the device has.
    """
    compiling = _driver(device)
    driver.set_active(compiling)
    compiling.launched = []
    with standing_in(device):
        yield compiling.launched
