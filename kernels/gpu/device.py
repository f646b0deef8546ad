"""The device that a tensor is on, as kernels see it, and a stand-in for machines that have none.

The Triton forms serve CUDA tensors. Without a GPU they serve CPU tensors while a device *stands in*: under Triton's
interpreter (``TRITON_INTERPRET=1``) they compute; with the driver of :mod:`kernels.gpu.compile_only` they are compiled
for the device that stands in, and not run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor


class Device(NamedTuple):
    """``capability`` is CUDA's compute capability without its point: 90 for 9.0."""

    capability: int
    multiprocessors: int


_standing_in: list[Device] = []


def serves(tensor: Tensor) -> bool:
    """Whether the Triton forms compute with this tensor."""
    return tensor.is_cuda or bool(_standing_in)


def device_of(tensor: Tensor) -> Device:
    """The device that will run a kernel on this tensor; see :func:`serves`."""
    return _properties(tensor.get_device()) if tensor.is_cuda else _standing_in[-1]


@contextmanager
def standing_in(device: Device) -> Iterator[None]:
    """Let the Triton forms serve CPU tensors, as if these were on ``device``."""
    _standing_in.append(device)
    try:
        yield
    finally:
        _standing_in.pop()


@cache
def _properties(index: int) -> Device:
    properties = torch.cuda.get_device_properties(index)
    return Device(properties.major * 10 + properties.minor, properties.multi_processor_count)
