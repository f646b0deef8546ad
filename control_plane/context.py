"""What services need from outside, in one place; the web, the workers and the tests each build one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request

import control_plane.tables  # noqa: F401 (a foreign key is resolved only where both of its tables are known)
from control_plane.clock import SYSTEM_CLOCK, Clock
from control_plane.database import Database, get_database
from control_plane.providers.base import Provider
from control_plane.providers.registry import get_providers
from control_plane.settings import Settings, get_settings
from control_plane.tables import __all__ as _every_table  # noqa: F401 (foreign keys need the tables they point at)


def send_hint(task: str, row_id: UUID) -> None:
    """Tell a worker to look at a row. Call it through ``database.after_commit``; losing it costs one sweep."""
    # The web can answer without Celery's import cost.
    from control_plane.celery_app import ROUTINE, URGENT, celery_app  # noqa: PLC0415

    priority = URGENT if celery_app.current_worker_task is None else ROUTINE
    celery_app.send_task(task, args=[str(row_id)], priority=priority)


@dataclass(frozen=True)
class Context:
    """The outside world of a service call."""

    settings: Settings
    database: Database
    clock: Clock
    providers: Mapping[str, Provider]
    #: ``hint(task name, row id)``; see :func:`send_hint`.
    hint: Callable[[str, UUID], None] = send_hint


@lru_cache
def get_context() -> Context:
    """The context of this process."""
    return Context(get_settings(), get_database(), SYSTEM_CLOCK, get_providers())


def _of_request(request: Request) -> Context:
    context = request.app.state.context
    if not isinstance(context, Context):
        raise TypeError("create_app() puts a Context on app.state")
    return context


#: FastAPI dependency: ``def endpoint(context: ContextDep)``.
ContextDep = Annotated[Context, Depends(_of_request)]
