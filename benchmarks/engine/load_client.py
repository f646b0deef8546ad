"""A streaming client for completions, in a process of its own: ``python -m engine.load_client``.

A line of JSON on standard input, ``{"port": …, "limit": seconds, "bodies": [request, …]}``, sends all requests at once,
each over its own connection; the answer is a line of JSON with each one's events. It does as little as possible per
event, because it shares the processor with what it measures: it counts ends of events in the raw bytes and looks at
their content only at the end of the stream.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import uvloop

#: No JSON text contains two line ends: one is always escaped.
_END_OF_EVENT = b"\n\n"
_COMPLETION_TOKENS = re.compile(rb'"completion_tokens":\s*(\d+)')
#: The usage event and ``[DONE]`` come after the last token.
_EVENTS_AFTER_TOKENS = 2
_TAIL = 4096


@dataclass
class _Exchange(asyncio.Protocol):
    """One request and its stream of events."""

    request: bytes
    ended: asyncio.Future[None]
    sent: float = 0.0
    events: list[tuple[float, int]] = field(default_factory=list)
    tail: bytes = b""
    last_byte: bytes = b""
    transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports can write but do not derive from asyncio's class that says so.
        self.transport = cast(asyncio.WriteTransport, transport)
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        ends = (self.last_byte + data).count(_END_OF_EVENT)
        if ends:
            self.events.append((time.perf_counter(), ends))
        self.last_byte = data[-1:]
        self.tail = (self.tail + data)[-_TAIL:]
        if b"data: [DONE]\n\n" in self.tail and not self.ended.done():
            self.ended.set_result(None)

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def outcome(self) -> dict[str, Any]:
        """``sent``, ``tokens`` and ``events`` that carry tokens as (time, events), or ``error``."""
        found = _COMPLETION_TOKENS.findall(self.tail)
        if not found or b"data: [DONE]" not in self.tail:
            return {"error": "no complete answer; it ends: " + self.tail[-400:].decode(errors="replace")}
        events, surplus = list(self.events), _EVENTS_AFTER_TOKENS
        while surplus:
            moment, count = events.pop()
            if count > surplus:
                events.append((moment, count - surplus))
            surplus -= min(count, surplus)
        return {"sent": self.sent, "tokens": int(found[-1]), "events": events}


def _http_request(body: dict[str, Any], port: int) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    # A connection for each request: none is reused that the server is about to close.
    return f"{head}Connection: close\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


async def _send(requests: Sequence[bytes], port: int, limit: float) -> list[dict[str, Any]]:
    loop = asyncio.get_running_loop()
    exchanges = [_Exchange(request, loop.create_future()) for request in requests]

    async def send(exchange: _Exchange) -> None:
        exchange.sent = time.perf_counter()
        await loop.create_connection(lambda: exchange, "127.0.0.1", port)
        await exchange.ended

    try:
        async with asyncio.timeout(limit):
            await asyncio.gather(*(send(exchange) for exchange in exchanges))
    except TimeoutError:
        return [{"error": f"no answer within {limit:.0f} s"}]
    finally:
        for exchange in exchanges:
            if exchange.transport is not None:
                exchange.transport.close()
    return [exchange.outcome() for exchange in exchanges]


def main() -> None:
    """Serve job lists until standard input ends."""
    for line in sys.stdin:
        job = json.loads(line)
        requests = [_http_request(body, job["port"]) for body in job["bodies"]]
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            outcomes = uvloop.run(_send(requests, job["port"], job["limit"]))
        except OSError as error:
            outcomes = [{"error": f"cannot connect: {error}"}]
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        sys.stdout.write(json.dumps({"outcomes": outcomes, "wall": wall, "cpu": cpu}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
