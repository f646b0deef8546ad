"""Deleting one orphan: again at every check until it is gone, and never another boot of the same name."""

from __future__ import annotations

import logging

from control_plane.context import Context
from control_plane.errors import SlipwayError
from control_plane.instances.reconcilers.release import ALERT_AFTER_S, DRAIN_S
from control_plane.providers.base import Provider, ReplicaState
from control_plane.reaper.tables import Orphan, OrphanState

logger = logging.getLogger(__name__)


def delete_orphan(context: Context, provider: Provider, orphan: Orphan) -> None:
    """Have the boot that ``orphan`` names end. An error is noted in its row; the next check tries again."""
    try:
        trouble = _delete(provider, orphan)
    except SlipwayError as error:
        trouble = f"{error.detail} {error.next_step}"
    _note(context, orphan, trouble)


def is_overdue(context: Context, orphan: Orphan) -> bool:
    """Whether it takes so long that a person should look."""
    if orphan.state != OrphanState.DELETING or orphan.decided_at is None:
        return False
    return (context.clock.now() - orphan.decided_at).total_seconds() > ALERT_AFTER_S


def _delete(provider: Provider, orphan: Orphan) -> str | None:
    """Names are used again: what bears it now must be asked who it is before it is deleted by it."""
    found = provider.find(orphan.name)
    if found.state is ReplicaState.ABSENT:
        return None
    if found.boot_token != orphan.boot_token:
        return f"another boot has its name now; see what {provider.name} runs under it twice"
    provider.delete(orphan.name, boot_token=orphan.boot_token, grace_s=DRAIN_S)
    return None


def _note(context: Context, orphan: Orphan, trouble: str | None) -> None:
    if is_overdue(context, orphan):
        logger.error("%s at %s is not gone yet: %s", orphan.name, orphan.provider, trouble or "it still is listed")
    with context.database.transaction() as session:
        row = session.get(Orphan, orphan.id)
        if row is not None and row.state == OrphanState.DELETING:
            row.trouble = trouble[:2000] if trouble else None
