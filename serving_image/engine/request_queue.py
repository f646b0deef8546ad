"""Requests in the order in which they are served."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from operator import attrgetter

from serving_image.engine.request import Request

_rank = attrgetter("rank")


class RequestQueue:
    """Requests by rank, the best first. Adding and removing one costs O(log n) comparisons."""

    def __init__(self) -> None:
        self._requests: list[Request] = []

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests)

    def __reversed__(self) -> Iterator[Request]:
        return reversed(self._requests)

    def __getitem__(self, index: int) -> Request:
        return self._requests[index]

    def add(self, request: Request) -> None:
        insort(self._requests, request, key=_rank)

    def discard(self, request: Request) -> bool:
        """Take a request out; whether it was there."""
        index = bisect_left(self._requests, request.rank, key=_rank)
        found = index < len(self._requests) and self._requests[index] is request
        if found:
            del self._requests[index]
        return found
