"""What an administrator decides about an orphan: delete it, or (``adoption.py``) adopt it."""

from __future__ import annotations

from functools import partial
from uuid import UUID

from sqlmodel import Session

from control_plane.accounts.principal import Principal
from control_plane.audit import repository as audit
from control_plane.context import Context
from control_plane.database import after_commit
from control_plane.errors import Conflict, NotFound
from control_plane.reaper import repository
from control_plane.reaper.check import CHECK
from control_plane.reaper.schemas import OrphanView
from control_plane.reaper.sightings import decide_deletion
from control_plane.reaper.tables import Orphan, OrphanState
from control_plane.reaper.views import orphan_view


def found(orphan: Orphan | None) -> Orphan:
    """``orphan``.

    :raises NotFound: there is none.
    """
    if orphan is None:
        raise NotFound("there is no such orphan", "GET /admin/orphans lists them.")
    return orphan


def delete(context: Context, principal: Principal, orphan_id: UUID) -> OrphanView:
    """Have an orphan deleted, however often that takes. Nothing happens if it is being deleted, or gone, already.

    :raises Conflict: an instance has adopted it.
    """
    with context.database.transaction() as session:
        orphan = found(repository.orphan(session, orphan_id))
        if orphan.state == OrphanState.ADOPTED:
            raise Conflict(f"{orphan.name} was adopted: an instance serves with it", "Terminate that instance.")
        if orphan.state in {OrphanState.LEFTOVER, OrphanState.UNKNOWN}:
            decide_deletion(orphan, principal.actor, context.clock.now())
            _record(session, context, principal, orphan)
            _hasten(session, context, orphan.provider)
        return orphan_view(context, orphan)


def _record(session: Session, context: Context, principal: Principal, orphan: Orphan) -> None:
    audit.record(
        session,
        context.clock,
        team_id=principal.team_id,
        actor=principal.actor,
        action="provider.orphan_delete_asked",
        object_type="orphan",
        object_id=orphan.id,
        message=f"{principal.name} had {orphan.name} deleted from {orphan.provider}: {orphan.reason}",
        provider=orphan.provider,
        name=orphan.name,
    )


def _hasten(session: Session, context: Context, provider: str) -> None:
    check_id = repository.hasten_check(session, provider, context.clock.now())
    if check_id is not None:
        after_commit(session, partial(context.hint, CHECK, check_id))
