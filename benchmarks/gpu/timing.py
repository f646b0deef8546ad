"""How long the device is at a call.

The call is captured in a CUDA graph, so that launches from Python do not count, and replayed between two events. Before
each replay 256 MiB are read, more than four times the L2 of an H200: what the call reads comes from memory, and the
device is busy while the host submits the events and the replay.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch

_FLUSHED = 2**28
_LEAST_RUNS, _MOST_RUNS = 7, 200


class Timing(NamedTuple):
    """Seconds: the median and the least of ``runs``. ``captured``: whether as a graph; if not, the time in which the
    host launches may be in it."""

    median: float
    least: float
    runs: int
    captured: bool


class Timer(Protocol):
    """What measures a call; :class:`CudaTimer`."""

    def measure(self, call: Callable[[], object]) -> Timing: ...


class CudaTimer:
    """Measures on the current device, about ``seconds`` long for each call, its first runs not counted."""

    def __init__(self, seconds: float = 0.25) -> None:
        self._seconds = seconds
        self._flushed = torch.ones(_FLUSHED // 4, device="cuda")

    def measure(self, call: Callable[[], object]) -> Timing:
        """:raises RuntimeError: the call fails."""
        replay = _captured(call)
        captured = replay is not None
        run = call if replay is None else replay
        times = [self._once(run) for _ in range(3)]
        runs = min(max(int(self._seconds / max(min(times), 1e-6)), _LEAST_RUNS), _MOST_RUNS)
        times = [self._once(run) for _ in range(runs)]
        return Timing(statistics.median(times), min(times), runs, captured)

    def _once(self, run: Callable[[], object]) -> float:
        started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        self._flushed.sum()
        started.record()
        run()
        ended.record()
        ended.synchronize()
        return float(started.elapsed_time(ended)) / 1e3


def _captured(call: Callable[[], object]) -> Callable[[], object] | None:
    """The call as a graph; None if it waits for the device, which cannot be captured."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            call()
    except RuntimeError:
        torch.cuda.synchronize()
        return None
    return graph.replay
