"""Points in the device's stream of work."""

from __future__ import annotations

import time
from typing import Protocol

import torch


class Moment(Protocol):
    """A point between two pieces of the device's work."""

    @property
    def reached(self) -> bool:
        """Whether everything before it is done. Raises if the device is lost."""

    def wait(self) -> None:
        """Wait until everything before it is done. Raises if the device is lost."""

    def seconds_since(self, earlier: Moment, /) -> float:
        """The device's time between two moments that were reached."""


def mark(device: torch.device) -> Moment:
    """The moment at which all that was launched so far is done."""
    return _CudaMoment() if device.type == "cuda" else _HostMoment()


class _CudaMoment:
    def __init__(self) -> None:
        self._event = torch.cuda.Event(enable_timing=True, blocking=True)  # type: ignore[no-untyped-call]
        self._event.record()

    @property
    def reached(self) -> bool:
        return bool(self._event.query())  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        self._event.synchronize()

    def seconds_since(self, earlier: Moment) -> float:
        if not isinstance(earlier, _CudaMoment):
            raise TypeError("both moments must be the same device's")
        return float(earlier._event.elapsed_time(self._event)) / 1000


class _HostMoment:
    """On a CPU, work is done when its launch returns."""

    reached = True

    def __init__(self) -> None:
        self._seconds = time.perf_counter()

    def wait(self) -> None:
        """It has passed."""

    def seconds_since(self, earlier: Moment) -> float:
        if not isinstance(earlier, _HostMoment):
            raise TypeError("both moments must be the same device's")
        return self._seconds - earlier._seconds
