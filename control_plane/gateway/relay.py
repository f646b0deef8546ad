"""Passing a request on to an engine and its answer back, byte by byte as it comes.

When the client goes away the connection to the engine is closed, which makes it drop the request. When the engine
goes away in the middle of a stream, the client is told so in the stream.

An engine that surely has not begun with a request passes it to the next: one that cannot be reached, that loads or
drains, or whose address now belongs to somebody who does not know our key. What may have been executed is never sent
twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass

import anyio
import httpx
from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from control_plane.context import Context
from control_plane.gateway.errors import BodyTooLarge, EngineDied, NotRunning, error_event
from control_plane.gateway.routing import Route, Upstream
from control_plane.gateway.suspicion import suspect

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

_UNAUTHORIZED, _UNAVAILABLE, _CLIENT_CLOSED_REQUEST = 401, 503, 499
#: What slipway-serve answers (503, ``error.code``) before it has begun with a request.
_NOT_BEGUN = frozenset({"loading", "draining"})
#: Such answers are short.
_REFUSAL_BYTES = 64 << 10


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
    context: Context = request.app.state.context
    for upstream in route.upstreams:
        try:
            response = await _send(request, client, _outgoing(request, client, upstream, path, body))
            head = await _refusal(response)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            await run_in_threadpool(suspect, context, route.instance_id)
            continue
        except httpx.TransportError as error:
            await run_in_threadpool(suspect, context, route.instance_id)
            raise EngineDied("the engine ended while it worked on this request") from error
        except _ClientGone:
            return Response(status_code=_CLIENT_CLOSED_REQUEST)
        if head.is_not_begun:
            await response.aclose()
            await run_in_threadpool(suspect, context, route.instance_id)
            continue
        return RelayedResponse(response, head, lambda: suspect(context, route.instance_id))
    raise NotRunning("the engine does not answer; if it ended, it is started again", retry_after_s=2)


@dataclass(frozen=True)
class _Head:
    """The beginning of an answer's body, read to find out what it is; and the rest, which is not read yet."""

    rest: AsyncIterator[bytes]
    read: bytes = b""
    is_not_begun: bool = False


async def _refusal(response: httpx.Response) -> _Head:
    """Whether an answer says that the engine has not begun with the request."""
    rest = response.aiter_raw()
    if response.status_code == _UNAUTHORIZED:
        return _Head(rest, is_not_begun=True)
    if response.status_code != _UNAVAILABLE:
        return _Head(rest)
    read = b""
    async for chunk in rest:
        read += chunk
        if len(read) > _REFUSAL_BYTES:
            break
    try:
        code = json.loads(read)["error"]["code"]
    except (ValueError, TypeError, LookupError):
        code = None
    return _Head(rest, read, is_not_begun=code in _NOT_BEGUN)


class RelayedResponse(StreamingResponse):
    """An engine's answer on its way to the client; the engine's connection is closed however this ends."""

    def __init__(self, upstream: httpx.Response, head: _Head, on_death: Callable[[], None]) -> None:
        super().__init__(_content(upstream, head, on_death), upstream.status_code)
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


async def _content(upstream: httpx.Response, head: _Head, on_death: Callable[[], None]) -> AsyncIterator[bytes]:
    is_stream = upstream.headers.get("Content-Type", "").startswith("text/event-stream")
    try:
        if head.read:
            yield head.read
        async for chunk in head.rest:
            yield chunk
    except httpx.TransportError:
        await run_in_threadpool(on_death)
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
