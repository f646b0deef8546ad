"""The server's end of the two sockets: sends requests, hands each one's outputs to whoever waits for them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import zmq
import zmq.asyncio

from serving_image.engine.protocol import (
    AbortRequests,
    AddRequest,
    Drain,
    EngineFailed,
    EngineInput,
    EngineReady,
    EngineStats,
    FinishReason,
    RequestOutput,
    decode_output,
    encode,
)
from serving_image.server.completion_rate import CompletionRate
from serving_image.server.metrics import Metrics
from serving_image.server.sequence_metrics import SequenceRecord


class OutputStream:
    """The outputs of the requests that one HTTP request stands for, in the order of their coming.

    Ends when each request has finished, or when the engine has.
    """

    def __init__(self, records: Mapping[str, SequenceRecord]) -> None:
        self.unfinished = set(records)
        self._records = records
        self._reasons: dict[str, FinishReason] = dict.fromkeys(records, "abort")
        self._outputs: deque[RequestOutput] = deque()
        self._changed = asyncio.Event()

    def put(self, output: RequestOutput, now: float) -> None:
        """Add an output, which came ``now``."""
        if output.request_id in self.unfinished:
            self._records[output.request_id].read(output, now)
        self._outputs.append(output)
        self._changed.set()

    def finish(self, request_id: str, reason: FinishReason) -> None:
        """One request ends for this reason, whatever the engine still says of it."""
        self.unfinished.discard(request_id)
        self._reasons[request_id] = reason

    def close(self, now: float) -> None:
        """Nobody reads any more: note how each request ended. One that had not was aborted."""
        for request_id, record in self._records.items():
            record.finish(self._reasons[request_id], now)

    async def __aiter__(self) -> AsyncIterator[RequestOutput]:
        while self._outputs or self.unfinished:
            while not self._outputs:
                self._changed.clear()
                await self._changed.wait()
            output = self._outputs.popleft()
            if output.finish_reason is not None:
                self.finish(output.request_id, output.finish_reason)
            yield output


class EngineClient:
    """One engine process, seen from the event loop.

    :param metrics: learns of the engine's start, its steps, and its sequences.
    :ivar ready: what the engine said when it was; None while it loads.
    :ivar failed: why the engine cannot go on.
    :ivar stats: its state by its last word.
    :ivar heard_at: when that was, by ``clock``.
    """

    def __init__(self, input_address: str, output_address: str, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._context = zmq.asyncio.Context()
        self._input = self._context.socket(zmq.PUSH)
        self._output = self._context.socket(zmq.PULL)
        for socket in (self._input, self._output):
            # No limit on what may wait: the server itself bounds how many requests there are. No waiting at the end:
            # the other side is gone then.
            socket.set_hwm(0)
            socket.linger = 0
        self._input.bind(input_address)
        self._output.bind(output_address)
        self._metrics = metrics
        self._clock = clock
        self._streams: dict[str, OutputStream] = {}
        self._rate = CompletionRate()
        self._idle = asyncio.Event()
        self._idle.set()
        self.ready: EngineReady | None = None
        self.failed: EngineFailed | None = None
        self.stats: EngineStats | None = None
        self.heard_at = clock()

    @property
    def num_live(self) -> int:
        """Sequences that someone waits for."""
        return len(self._streams)

    @property
    def heartbeat_age(self) -> float:
        """Seconds since the engine was last heard of; it speaks twice a second, within a step as well."""
        return self._clock() - self.heard_at

    @property
    def seconds_without_progress(self) -> float:
        """Seconds for which the engine has had work but ended no step, by its last word; 0 when idle."""
        return 0.0 if self.stats is None else self.stats.seconds_without_progress

    def seconds_until_ended(self, num_sequences: int) -> float:
        """How long it takes, at the rate of the last minute, until so many sequences end; may be infinite."""
        return self._rate.seconds_for(num_sequences, self._clock())

    async def receive(self) -> EngineReady | EngineFailed | None:
        """Take one message of the engine and deliver what is in it; returns it if it is no step."""
        message = decode_output(await self._output.recv())
        self.heard_at = now = self._clock()
        if isinstance(message, EngineReady):
            self._metrics.engine_ready(message)
            self.ready = message
            return message
        if isinstance(message, EngineFailed):
            self.failed = message
            return message
        self.stats = message.stats
        self._metrics.engine_spoke(message.stats)
        for output in message.outputs:
            if output.finish_reason is not None:
                self._rate.count(now)
            stream = self._streams.get(output.request_id)
            # No stream: the request was aborted while this output was on its way.
            if stream is not None:
                stream.put(output, now)
        return None

    @contextmanager
    def submit(self, requests: Sequence[AddRequest], n: int) -> Iterator[OutputStream]:
        """Send requests and follow them; those unfinished at the end of the block are aborted.

        :param n: so many in a row continue the same prompt.
        :raises RuntimeError: the engine is not ready.
        """
        records = self._metrics.open(requests, n, self._clock())
        stream = OutputStream({request.request_id: record for request, record in zip(requests, records, strict=True)})
        for request in requests:
            self._streams[request.request_id] = stream
            self._send(request)
        self._idle.clear()
        try:
            yield stream
        finally:
            for request in requests:
                del self._streams[request.request_id]
            if stream.unfinished:
                self._send(AbortRequests(sorted(stream.unfinished)))
            stream.close(self._clock())
            if not self._streams:
                self._idle.set()

    def stop(self, request_id: str) -> None:
        """End one request at a stop string; no more of its outputs are awaited."""
        self._streams[request_id].finish(request_id, "stop")
        self._send(AbortRequests([request_id]))

    def drain(self) -> None:
        """Ask the engine to finish and exit."""
        self._send(Drain())

    async def wait_connected(self) -> None:
        """Return when the engine is at the other end of both sockets; it has spoken on one of them already."""
        poller = zmq.asyncio.Poller()
        poller.register(self._input, zmq.POLLOUT)
        await poller.poll()

    async def wait_idle(self) -> None:
        """Return when nobody waits for any sequence."""
        await self._idle.wait()

    def lose(self, message: str, next_step: str) -> None:
        """The engine is gone: end every stream with an error, and take no more."""
        if self.failed is None:
            self.failed = EngineFailed(message, next_step)
        now = self._clock()
        for request_id, stream in list(self._streams.items()):
            if request_id in stream.unfinished:
                stream.put(RequestOutput(request_id, [], finish_reason="error", error=message), now)

    def close(self) -> None:
        self._context.destroy(linger=0)

    def _send(self, message: EngineInput) -> None:
        # Without a limit on the queue a send never waits, so the future is already done.
        self._input.send(encode(message))
