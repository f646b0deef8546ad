"""When a request's tokens came, and the rates that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Trace:
    """One answered request; times are seconds on one clock for all requests of a job list.

    ``arrivals`` are (time, tokens) in order. Servers may put several tokens into one event: a token's share of an event
    is then its mean, so that ``tokens`` is always the sum.
    """

    sent: float
    arrivals: list[tuple[float, float]]

    @property
    def first(self) -> float:
        return self.arrivals[0][0]

    @property
    def last(self) -> float:
        return self.arrivals[-1][0]

    @property
    def tokens(self) -> float:
        return sum(count for _, count in self.arrivals)


def time_to_first_token(trace: Trace) -> float:
    """Seconds from sending the request to its first token."""
    return trace.first - trace.sent


def output_rate(traces: Sequence[Trace]) -> float:
    """Tokens per second of all requests, from the first one's sending to the last one's end."""
    return sum(trace.tokens for trace in traces) / makespan(traces)


def makespan(traces: Sequence[Trace]) -> float:
    """Seconds from the first sending to the last token."""
    return max(trace.last for trace in traces) - min(trace.sent for trace in traces)


def decode_rate(traces: Sequence[Trace]) -> float:
    """Tokens per second while all requests decode: after the last one's first token, until the first one's end.

    For one request that is every token but the first, over the time from the first to the last.

    :raises ValueError: the first request had ended before the last one began.
    """
    start = max(trace.first for trace in traces)
    end = min(trace.last for trace in traces)
    if end <= start:
        raise ValueError("the first request had ended before the last one had its first token")
    tokens = sum(count for trace in traces for time, count in trace.arrivals if start < time <= end)
    return tokens / (end - start)
