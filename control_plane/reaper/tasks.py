"""Celery's entry points."""

from __future__ import annotations

from uuid import UUID

from control_plane.celery_app import celery_app
from control_plane.context import get_context
from control_plane.reaper import check as reaper


@celery_app.task(name=reaper.CHECK)  # type: ignore[untyped-decorator]
def check(check_id: str) -> None:
    """Check one provider, if it is due."""
    reaper.check(get_context(), UUID(check_id))


@celery_app.task(name="reaper.sweep")  # type: ignore[untyped-decorator]
def sweep() -> None:
    """Find the providers that are due."""
    reaper.sweep(get_context())
