"""Rows → what the API shows."""

from __future__ import annotations

from sqlmodel import Session

from control_plane.context import Context
from control_plane.reaper import repository
from control_plane.reaper.deletion import is_overdue
from control_plane.reaper.match import replica_named
from control_plane.reaper.schemas import OrphansView, OrphanView, ProviderView
from control_plane.reaper.tables import Orphan, OrphanState, ProviderCheck


def orphans(context: Context) -> OrphansView:
    """Everything unmatched, and how each provider's list was when it was last read."""
    with context.database.reading() as session:
        items = [orphan_view(context, orphan) for orphan in repository.open_orphans(session)]
        return OrphansView(items=items, providers=providers(session, context))


def providers(session: Session, context: Context) -> list[ProviderView]:
    """Every provider that is configured, or that was and still has a row."""
    rows = {row.provider: row for row in repository.checks(session)}
    names = sorted(rows.keys() | set(context.providers))
    return [_provider_view(context, name, rows.get(name)) for name in names]


def orphan_view(context: Context, orphan: Orphan) -> OrphanView:
    """One orphan."""
    adoptable = orphan.state == OrphanState.UNKNOWN and replica_named(orphan.name) is not None
    return OrphanView.model_validate(orphan).model_copy(
        update={"overdue": is_overdue(context, orphan), "adoptable": adoptable}
    )


def _provider_view(context: Context, name: str, row: ProviderCheck | None) -> ProviderView:
    row = row or ProviderCheck(provider=name, next_attempt_at=context.clock.now())
    checked_at = row.last_listed_at
    return ProviderView(
        name=name,
        configured=name in context.providers,
        checked_at=checked_at,
        age_s=max(0.0, (context.clock.now() - checked_at).total_seconds()) if checked_at else None,
        error=row.last_error,
        error_since=row.error_since,
        owned=row.owned,
        matched=row.matched,
        unmatched=row.unmatched,
        brake=(row.brake_reason or "too many of its replicas look gone at once") if row.brake_since else None,
        brake_since=row.brake_since,
        loss_confirmed_at=row.loss_confirmed_at,
    )
