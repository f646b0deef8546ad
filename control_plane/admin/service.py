"""What administrators see of all teams."""

from __future__ import annotations

from uuid import UUID

from control_plane.admin import repository
from control_plane.admin.schemas import AdminDownloadView, AdminInstanceView
from control_plane.context import Context
from control_plane.downloads import repository as download_files
from control_plane.downloads.service import progress
from control_plane.instances.views import views
from control_plane.pagination import Page, page_of


def list_instances(
    context: Context,
    *,
    phase: str | None = None,
    provider: str | None = None,
    cursor: UUID | None = None,
    limit: int = 50,
) -> Page[AdminInstanceView]:
    """Every team's instances, newest first."""
    with context.database.reading() as session:
        rows = repository.instances(session, phase=phase, provider=provider, before=cursor, limit=limit + 1)
        teams = repository.team_names(session, [row.team_id for row in rows])
        shown = views(session, context, rows)
    items = [
        AdminInstanceView(
            **view.model_dump(), team_id=row.team_id, team=teams.get(row.team_id, ""), provider=row.provider
        )
        for row, view in zip(rows, shown, strict=True)
    ]
    return page_of(items, limit)


def list_downloads(context: Context, *, cursor: UUID | None = None, limit: int = 50) -> Page[AdminDownloadView]:
    """Every download, newest first."""
    with context.database.reading() as session:
        rows = repository.downloads(session, before=cursor, limit=limit + 1)
        items = [
            AdminDownloadView(
                **progress(context, row, download_files.files(session, row.id)).model_dump(),
                location=row.location,
                provider=row.provider,
            )
            for row in rows
        ]
    return page_of(items, limit)
