"""A process's sign of life: a thread that writes to its row, whatever the rest of the process is doing.

It is no task and no request on purpose: a worker whose connection to the broker has died takes no tasks, and yet
lives. The row says both: when the process was last seen, and when it last began a task.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from importlib.metadata import version
from types import TracebackType
from typing import Any

from fastapi import FastAPI
from sqlalchemy import CursorResult, delete, update
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col

from control_plane.clock import Clock
from control_plane.database import Database
from control_plane.processes.tables import ProcessHeartbeat, ProcessKind

logger = logging.getLogger(__name__)

BEAT_EVERY_S = 10.0
#: An end must not wait for a database that is away.
_FAREWELL_S = 3.0


class Heart:
    """Beats while its ``with`` block lasts; an orderly end takes the row away.

    :ivar name: ``worker@host:pid``
    """

    def __init__(self, database: Database, clock: Clock, kind: ProcessKind, *, every_s: float = BEAT_EVERY_S) -> None:
        self._database = database
        self._clock = clock
        self._kind = kind
        self._every_s = every_s
        self._host, self._pid = socket.gethostname(), os.getpid()
        self.name = f"{kind}@{self._host}:{self._pid}"
        self._started_at = clock.now()
        self._last_task_at: datetime | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(_FAREWELL_S)

    def note_task(self) -> None:
        """A task begins. Costs nothing: the next beat writes it down."""
        self._last_task_at = self._clock.now()

    def beat(self) -> None:
        """Write the row."""
        values: dict[str, Any] = {"seen_at": self._clock.now(), "started_at": self._started_at}
        if self._last_task_at is not None:
            values["last_task_at"] = self._last_task_at
        with self._database.transaction() as session:
            mine = update(ProcessHeartbeat).where(col(ProcessHeartbeat.name) == self.name)
            result = session.execute(mine.values(**values), execution_options={"synchronize_session": False})
            if isinstance(result, CursorResult) and result.rowcount:
                return
            row = ProcessHeartbeat(
                name=self.name, kind=self._kind, host=self._host, pid=self._pid, version=version("slipway"), **values
            )
            session.add(row)

    def _run(self) -> None:
        failing = False
        while True:
            try:
                self.beat()
                failing = False
            except SQLAlchemyError as error:
                if not failing:
                    logger.warning("the sign of life could not be written: %s", str(error).splitlines()[0])
                failing = True
            if self._stop.wait(self._every_s):
                break
        try:
            with self._database.transaction() as session:
                session.execute(delete(ProcessHeartbeat).where(col(ProcessHeartbeat.name) == self.name))
        except SQLAlchemyError:
            logger.info("the row of this process stays behind; it is removed in a day")


def beating(kind: ProcessKind) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """A lifespan for an application: its process beats while it serves."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with Heart(app.state.context.database, app.state.context.clock, kind):
            yield

    return lifespan
