"""Live views of an instance as server-sent events: sent when something changed, looked for twice a second.

The database and the logs are polled: they are what every process of the control plane shares, a killed worker or
web server included, so a view that reconnects misses nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse

from control_plane.accounts.principal import Principal
from control_plane.context import Context
from control_plane.errors import SlipwayError
from control_plane.instances import service
from control_plane.instances.logs import LogSource

logger = logging.getLogger(__name__)

EVENT_STREAM = "text/event-stream"
LOOK_EVERY_S = 0.5
_PING_EVERY_S = 15


class Source(Protocol):
    """Something that changes."""

    def news(self) -> Iterable[ServerSentEvent]:
        """What is new since the last call. Blocks on the database or a disk."""
        ...


def stream(*sources: Source) -> EventSourceResponse:
    """A response that goes on until the client does."""

    async def events() -> AsyncIterator[ServerSentEvent]:
        while True:
            for source in sources:
                for event in await run_in_threadpool(_news, source):
                    yield event
            await asyncio.sleep(LOOK_EVERY_S)

    return EventSourceResponse(events(), ping=_PING_EVERY_S, headers={"Cache-Control": "no-store"})


def _news(source: Source) -> list[ServerSentEvent]:
    try:
        return list(source.news())
    except SlipwayError as error:
        logger.info("a live view has nothing to show for now: %s", error.detail)
        return []


@dataclass
class Changing:
    """``event`` with the whole value as JSON, whenever it is another one than before; ``read`` gives it.

    Members named in ``ever_moving`` change by the clock alone and are no news.
    """

    event: str
    read: Callable[[], BaseModel]
    ever_moving: frozenset[str] = frozenset()
    _sent: str | None = None

    def news(self) -> Iterable[ServerSentEvent]:
        """The value, if it changed."""
        value = self.read()
        compared = value.model_dump_json(exclude=set(self.ever_moving))
        if compared != self._sent:
            self._sent = compared
            yield ServerSentEvent(value.model_dump_json(), event=self.event)


@dataclass
class Timeline:
    """``event`` for every line of an instance's timeline, from the beginning or after ``cursor``."""

    context: Context
    principal: Principal
    instance_id: UUID
    cursor: UUID | None = None

    def news(self) -> Iterable[ServerSentEvent]:
        """New lines."""
        page = service.events(self.context, self.principal, self.instance_id, cursor=self.cursor)
        for line in page.items:
            self.cursor = line.id
            yield ServerSentEvent(line.model_dump_json(), event="event", id=str(line.id))


@dataclass
class Log:
    """``log`` for every new piece of a replica's log; its id is the offset to go on from."""

    source: LogSource
    offset: int

    def news(self) -> Iterable[ServerSentEvent]:
        """New text."""
        piece = self.source.read(self.offset)
        if piece.text:
            self.offset = piece.next_offset
            yield ServerSentEvent(piece.model_dump_json(), event="log", id=str(piece.next_offset))
