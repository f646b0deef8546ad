"""Copies between host and device that nobody waits for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from serving_image.runtime.gpu.moment import Moment, mark

_SMALLEST = 4096


def read_back(tensor: Tensor) -> Tensor:
    """A copy on the host, there once the device has got to it: see :func:`~serving_image.runtime.gpu.moment.mark`."""
    if not tensor.is_cuda:
        return tensor.clone()
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


def send(values: NDArray[np.generic], device: torch.device) -> Tensor:
    """A copy on the device, of what is sent now and then."""
    host = torch.from_numpy(values)
    return send_into(torch.empty(host.shape, dtype=host.dtype, device=device), values)


def send_into(memory: Tensor, values: NDArray[np.generic]) -> Tensor:
    """Copy to memory on the device; torch keeps the pinned memory in between until it has been read."""
    host = torch.from_numpy(values)
    return memory.copy_(host.pin_memory() if memory.is_cuda else host, non_blocking=True)


class WordStream:
    """Sends runs of int32 words, one after another, through pinned memory that is used again.

    There are two buffers on the host, taken in turn, so that the next run can be written while the one before is still
    on its way; on the device there is one, because its work is done in order.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers = [_Buffer(_SMALLEST, device), _Buffer(_SMALLEST, device)]
        self._words = torch.empty(_SMALLEST, dtype=torch.int32, device=device)

    def send(self, parts: Sequence[NDArray[np.int32]]) -> Tensor:
        """The parts one after another, on the device until the next call."""
        size = sum(map(len, parts))
        self._buffers.reverse()
        if self._buffers[0].size < size:
            self._buffers[0] = _Buffer(2 * size, self._device)
        if len(self._words) < size:
            self._words = torch.empty(2 * size, dtype=torch.int32, device=self._device)
        return self._buffers[0].copy_to(self._words[:size], parts)


class _Buffer:
    """Pinned memory, and the moment from which it may be written again."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.size = size
        self._memory = torch.empty(size, dtype=torch.int32, pin_memory=device.type == "cuda")
        self._values = self._memory.numpy()
        self._free: Moment | None = None

    def copy_to(self, words: Tensor, parts: Sequence[NDArray[np.int32]]) -> Tensor:
        if self._free is not None:
            # It was sent two steps ago, of which the first has been read: nothing is waited for.
            self._free.wait()
        np.concatenate(parts, out=self._values[: len(words)])
        words.copy_(self._memory[: len(words)], non_blocking=True)
        self._free = mark(words.device)
        return words
