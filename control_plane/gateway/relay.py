"""Passing a request on to an engine and its answer back, byte by byte as it comes.

When the client goes away the connection to the engine is closed, which makes it drop the request. When the engine
goes away in the middle of a stream, the client is told so in the stream.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

import anyio
import httpx
from fastapi import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from control_plane.gateway.errors import BodyTooLarge, EngineDied, NotRunning, error_event
from control_plane.gateway.routing import Route, Upstream

#: Prompts with images or long token lists; more is a mistake or an attack.
MAX_BODY_BYTES = 32 << 20

#: Reading has no limit: a long answer may take as long as it likes. A silent engine is the reconciler's business.
TIMEOUT = httpx.Timeout(connect=5.0, read=None, write=60.0, pool=None)

_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection"}
    | {"te", "trailer", "transfer-encoding", "upgrade"}
)
#: The caller's own credentials end here; length and host are the new connection's.
_NOT_FORWARDED = _HOP_BY_HOP | {"authorization", "cookie", "x-csrf-token", "host", "content-length", "expect"}
_NOT_RETURNED = _HOP_BY_HOP | {"set-cookie", "server", "date"}

_CLIENT_CLOSED_REQUEST = 499


class _ClientGone(Exception):
    """The client hung up before the engine answered."""


def make_client() -> httpx.AsyncClient:
    """The client for engines. One connection per request: closing it is how a request is dropped."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncClient(timeout=TIMEOUT, limits=limits, trust_env=False, follow_redirects=False)


async def read_body(request: Request) -> bytes:
    """The whole body of ``request``.

    :raises BodyTooLarge: more than ``MAX_BODY_BYTES``.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise BodyTooLarge(f"the request is larger than {MAX_BODY_BYTES >> 20} MiB")
    return bytes(body)


async def relay(request: Request, client: httpx.AsyncClient, route: Route, path: str, body: bytes) -> Response:
    """Send ``request`` (its body read already) to the first engine of ``route`` that takes it.

    :raises NotRunning: none does.
    :raises EngineDied: it took the request and ended before it answered.
    """
    for upstream in route.upstreams:
        try:
            response = await _send(request, client, _outgoing(request, client, upstream, path, body))
        except (httpx.ConnectError, httpx.ConnectTimeout):
            continue
        except httpx.TransportError as error:
            raise EngineDied("the engine ended while it worked on this request") from error
        except _ClientGone:
            return Response(status_code=_CLIENT_CLOSED_REQUEST)
        return RelayedResponse(response)
    raise NotRunning("the engine does not answer; if it ended, it is started again", retry_after_s=2)


class RelayedResponse(StreamingResponse):
    """An engine's answer on its way to the client; the engine's connection is closed however this ends."""

    def __init__(self, upstream: httpx.Response) -> None:
        super().__init__(_content(upstream), upstream.status_code)
        self.raw_headers = list(_kept(upstream.headers.raw, _NOT_RETURNED))
        self.raw_headers += [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
        self._upstream = upstream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; see StreamingResponse."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._upstream.aclose()


async def _content(upstream: httpx.Response) -> AsyncIterator[bytes]:
    is_stream = upstream.headers.get("Content-Type", "").startswith("text/event-stream")
    try:
        async for chunk in upstream.aiter_raw():
            yield chunk
    except httpx.TransportError:
        if not is_stream:
            raise  # the client sees an answer that is shorter than announced
        yield error_event(EngineDied("the engine ended in the middle of this answer"))


def _outgoing(request: Request, client: httpx.AsyncClient, upstream: Upstream, path: str, body: bytes) -> httpx.Request:
    query = f"?{request.url.query}" if request.url.query else ""
    headers = [*_kept(request.headers.raw, _NOT_FORWARDED), (b"authorization", f"Bearer {upstream.api_key}".encode())]
    return client.build_request(request.method, f"{upstream.url}{path}{query}", headers=headers, content=body)


async def _send(request: Request, client: httpx.AsyncClient, outgoing: httpx.Request) -> httpx.Response:
    """The answer's head; nothing else would notice a client that hangs up while the engine still thinks."""
    sending = asyncio.create_task(client.send(outgoing, stream=True))
    watching = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({sending, watching}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            return sending.result()
        raise _ClientGone
    finally:
        for task in (sending, watching):
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, httpx.TransportError):
                    await task


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _kept(headers: Iterable[tuple[bytes, bytes]], dropped: frozenset[str]) -> Iterable[tuple[bytes, bytes]]:
    return ((name, value) for name, value in headers if name.decode("latin-1").lower() not in dropped)
