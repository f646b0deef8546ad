"""Live parts of a page: HTML fragments, sent as server-sent events when they have changed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse

from control_plane.accounts.dependencies import authenticate
from control_plane.context import Context
from control_plane.errors import SlipwayError

#: Twice a second: more would be noise to a reader.
INTERVAL_S = 0.5
_PING_S = 15

#: The words in a <time> element are counted on by the browser itself: their passing is no news.
_CLOCKS = re.compile(r"(<time [^>]*>)[^<]*")

#: Event name → HTML. Called in a thread; may read the database.
Snapshot = Callable[[], Mapping[str, str]]


def stream(request: Request, context: Context, snapshot: Snapshot) -> EventSourceResponse:
    """The fragments of ``snapshot`` as they change, until the browser leaves or its session ends."""
    return EventSourceResponse(_changes(request, context, snapshot), ping=_PING_S)


async def _changes(request: Request, context: Context, snapshot: Snapshot) -> AsyncIterator[ServerSentEvent]:
    def current() -> Mapping[str, str]:
        authenticate(request, context)
        return snapshot()

    sent: dict[str, str] = {}
    while not await request.is_disconnected():
        try:
            fragments = await run_in_threadpool(current)
        except SlipwayError:
            # Signed out, or the object is gone: the reconnecting browser meets the same error as an answer.
            return
        for name, html in fragments.items():
            essence = _CLOCKS.sub(r"\1", html)
            if sent.get(name) != essence:
                sent[name] = essence
                yield ServerSentEvent(html, event=name)
        await asyncio.sleep(INTERVAL_S)
