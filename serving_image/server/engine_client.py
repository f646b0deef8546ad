"""The server's end of the two sockets: sends requests, hands each one's outputs to whoever waits for them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
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
    RequestOutput,
    decode_output,
    encode,
)


class OutputStream:
    """The outputs of the requests that one HTTP request stands for, in the order of their coming.

    Ends when each request has finished, or when the engine has.
    """

    def __init__(self, request_ids: Iterable[str]) -> None:
        self.unfinished = set(request_ids)
        self._outputs: deque[RequestOutput] = deque()
        self._changed = asyncio.Event()

    def put(self, output: RequestOutput) -> None:
        self._outputs.append(output)
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[RequestOutput]:
        while self._outputs or self.unfinished:
            while not self._outputs:
                self._changed.clear()
                await self._changed.wait()
            output = self._outputs.popleft()
            if output.finish_reason is not None:
                self.unfinished.discard(output.request_id)
            yield output


class EngineClient:
    """One engine process, seen from the event loop.

    :param on_step: called with the engine's state after each of its steps.
    :ivar ready: what the engine said when it was; None while it loads.
    :ivar failed: why the engine cannot go on.
    """

    def __init__(self, input_address: str, output_address: str, clock: Callable[[], float]) -> None:
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
        self._clock = clock
        self._streams: dict[str, OutputStream] = {}
        self._heard_at = clock()
        self._idle = asyncio.Event()
        self._idle.set()
        self.ready: EngineReady | None = None
        self.failed: EngineFailed | None = None
        self.stats: EngineStats | None = None

    @property
    def num_live(self) -> int:
        """Sequences that someone waits for."""
        return len(self._streams)

    @property
    def heartbeat_age(self) -> float:
        """Seconds since the engine was last heard of; it speaks at least once a second between steps."""
        return self._clock() - self._heard_at

    async def receive(self) -> EngineReady | EngineFailed | None:
        """Take one message of the engine and deliver what is in it; returns it if it is no step."""
        message = decode_output(await self._output.recv())
        self._heard_at = self._clock()
        if isinstance(message, EngineReady):
            self.ready = message
            return message
        if isinstance(message, EngineFailed):
            self.failed = message
            return message
        self.stats = message.stats
        for output in message.outputs:
            stream = self._streams.get(output.request_id)
            # No stream: the request was aborted while this output was on its way.
            if stream is not None:
                stream.put(output)
        return None

    @contextmanager
    def submit(self, requests: Sequence[AddRequest]) -> Iterator[OutputStream]:
        """Send requests and follow them; those unfinished at the end of the block are aborted."""
        stream = OutputStream(request.request_id for request in requests)
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
            if not self._streams:
                self._idle.set()

    def abort(self, request_id: str) -> None:
        """End one request of a stream that goes on for others; no more of its outputs are awaited."""
        self._streams[request_id].unfinished.discard(request_id)
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

    def lose(self, message: str) -> None:
        """The engine is gone: end every stream with an error, and take no more."""
        if self.failed is None:
            self.failed = EngineFailed(message, "")
        for request_id, stream in list(self._streams.items()):
            if request_id in stream.unfinished:
                stream.put(RequestOutput(request_id, [], finish_reason="error", error=message))

    def close(self) -> None:
        self._context.destroy(linger=0)

    def _send(self, message: EngineInput) -> None:
        # Without a limit on the queue a send never waits, so the future is already done.
        self._input.send(encode(message))
