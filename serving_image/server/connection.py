"""The client's side of a request: its body, its going away, and the stream back to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving_image.server.errors import ApiError

MAX_BODY_BYTES = 32 * 2**20
Result = TypeVar("Result")


async def read_body(request: Request) -> bytes:
    """The request's body.

    :raises ApiError: it is larger than :data:`MAX_BODY_BYTES` (413).
    """
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise ApiError(413, f"The body is larger than {MAX_BODY_BYTES} bytes; send less.")
        chunks.append(chunk)
    return b"".join(chunks)


async def unless_gone(receive: Receive, work: Coroutine[None, None, Result]) -> Result:
    """Do ``work`` while the client is there; call it after the body has been read.

    :raises ClientDisconnect: the client went away; ``work`` has been cancelled and has ended.
    """
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        gone.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events, each item one or more of them, then ``data: [DONE]``.

    The first item is awaited before the response starts, so that a request that fails at once has its own status;
    make one with :meth:`start`.
    """

    media_type = "text/event-stream"

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes]) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._first = first
        self._rest = rest

    @classmethod
    async def start(cls, receive: Receive, items: AsyncGenerator[bytes]) -> EventStream:
        """Wait for the first item of ``items``.

        :raises ClientDisconnect: the client went away.
        """
        return cls(await unless_gone(receive, _first(items)), items)

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        # Who has left reads no error either.
        with suppress(ClientDisconnect):
            await unless_gone(receive, self._pump(send))

    async def _pump(self, send: Send) -> None:
        async with aclosing(self._rest) as items:
            await _send_more(send, self._first)
            try:
                async for item in items:
                    await _send_more(send, item)
            except ApiError as error:
                await _send_more(send, b"data: " + error.body + b"\n\n")
            else:
                await _send_more(send, b"data: [DONE]\n\n")
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _first(items: AsyncGenerator[bytes]) -> bytes:
    return await anext(items)


async def _send_more(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
