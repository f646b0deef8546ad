"""Many instance rows at once, a given number of them due."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlalchemy import insert, text
from sqlmodel import col, update

from control_plane.accounts.tables import Team, User
from control_plane.context import Context
from control_plane.ids import new_id
from control_plane.instances.lifecycle import Phase
from control_plane.instances.tables import Desired, Instance

#: Until the rows that are not due are: longer than a benchmark, shorter than what counts as written by another clock.
_LATER = timedelta(seconds=110)


def add_rows(context: Context, count: int) -> None:
    """``count`` running instances, none of them due."""
    now = context.clock.now()
    with context.database.transaction() as session:
        team = Team(name="benchmark", created_at=now)
        user = User(email="benchmark@example.org", name="benchmark", created_at=now)
        session.add_all([team, user])
        session.flush()
        session.execute(insert(Instance), [_row(number, team.id, user.id, context) for number in range(count)])


def make_due(context: Context, count: int) -> None:
    """Let the first ``count`` rows be due and the rest not be; the planner's statistics are brought up to date."""
    now = context.clock.now()
    first = [f"row-{number}" for number in range(count)]
    with context.database.transaction() as session:
        session.execute(update(Instance).values(next_attempt_at=now + _LATER))
        session.execute(update(Instance).where(col(Instance.slug).in_(first)).values(next_attempt_at=now))
    with context.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        is_postgres = context.database.engine.dialect.name == "postgresql"
        connection.execute(text("VACUUM ANALYZE instance" if is_postgres else "ANALYZE instance"))


def _row(number: int, team_id: UUID, user_id: UUID, context: Context) -> dict[str, object]:
    now = context.clock.now()
    return {
        **{"id": new_id(), "team_id": team_id, "created_by": user_id, "name": f"row-{number}", "slug": f"row-{number}"},
        **{"model": "slipway/starter", "provider": "fake", "hardware": "fake-cpu", "phase": Phase.RUNNING},
        **{"desired": Desired.RUNNING, "reason": "answering requests", "since": now, "next_attempt_at": now + _LATER},
        **{"created_at": now, "engine": {}, "limits": {}},
    }
