"""Steps in which every request runs one token, replayed from CUDA graphs."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

_FIRST_BETWEEN = 16
"""From here on there is a size halfway between two powers of two, so that padding is a third of a batch at most."""


class GraphKey(NamedTuple):
    """What is fixed within a graph: its rows, and how many programs may share a context."""

    rows: int
    splits: int


class Graph(Protocol):
    """A computation on memory that stays where it is.

    :ivar output: the result, until any graph is replayed.
    """

    output: Tensor

    def replay(self) -> None: ...


class DecodeGraphs:
    """Graphs for batches of one token each, by size: 1, 2, 4, 8, 16, 24, 32, 48, 64, 96, …

    A batch runs in the next larger size; the rows that fill it up have the slot -1 and an empty context. Without graphs
    the host's launches, eight a layer, take longer than a small batch's kernels.

    For a capture everything stops until the device is idle and all launches were made once more. So none is made before
    an answer was begun, nor before a key recurs since then: its first step runs as it is, and does what a kernel does
    only once, such as loading its code, which a capture must not hold.

    All graphs share one pool of memory: one runs at a time.

    :param forward: from the inputs of a key, which are in place, to final hidden states, ``[rows, hidden]``.
    :param max_rows: the largest batch.
    """

    def __init__(self, forward: Callable[[GraphKey], Tensor], max_rows: int, device: torch.device) -> None:
        self.sizes = _sizes(max_rows)
        self._forward = forward
        self._capture = _CudaCapture() if device.type == "cuda" else RecordedCall
        self._seen: set[GraphKey] = set()
        self._graphs: dict[GraphKey, Graph] = {}
        self._usable = True

    @property
    def num_captured(self) -> int:
        return len(self._graphs)

    def size_for(self, rows: int) -> int:
        """The size that a batch of ``rows`` is filled up to."""
        return self.sizes[bisect_left(self.sizes, rows)]

    def run(self, key: GraphKey, *, may_capture: bool) -> Tensor:
        """Final hidden states, which last until the next call.

        :param may_capture: whether there is time to capture a graph.
        """
        graph = self._graphs.get(key)
        if graph is None and may_capture and self._usable:
            if key in self._seen:
                graph = self._captured(key)
            self._seen.add(key)
        if graph is None:
            return self._forward(key)
        graph.replay()
        return graph.output

    def _captured(self, key: GraphKey) -> Graph | None:
        try:
            self._graphs[key] = self._capture(lambda: self._forward(key))
        except torch.AcceleratorError as error:
            if "capture" not in str(error).lower():
                raise
            self._give_up(key)
        except Exception:
            self._give_up(key)
        return self._graphs.get(key)

    def _give_up(self, key: GraphKey) -> None:
        self._usable = False
        logger.exception("no CUDA graph of %s could be captured; decoding goes on without new ones", key)


@dataclass
class RecordedCall:
    """Off CUDA: the computation itself, made again with every replay, its result copied to where the first one lay."""

    compute: Callable[[], Tensor]

    def __post_init__(self) -> None:
        self.output = self.compute().clone()

    def replay(self) -> None:
        """Compute :attr:`output` anew."""
        self.output.copy_(self.compute())


class _CudaCapture:
    """Captures graphs into one pool, on one stream of their own."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, compute: Callable[[], Tensor]) -> Graph:
        graph = torch.cuda.CUDAGraph()
        # Other threads may use CUDA meanwhile, which must not end the capture.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            output = compute()
        return _CudaGraph(output, graph)


@dataclass
class _CudaGraph:
    output: Tensor
    graph: torch.cuda.CUDAGraph

    def replay(self) -> None:
        self.graph.replay()


def _sizes(max_rows: int) -> list[int]:
    powers = [1 << exponent for exponent in range(max_rows.bit_length())]
    between = [3 * power // 2 for power in powers if power >= _FIRST_BETWEEN]
    return sorted({size for size in (*powers, *between, max_rows) if size <= max_rows})
