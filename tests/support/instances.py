"""A control plane for instances: real rows, a provider in memory, a clock that the test moves, hints that are noted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from control_plane.accounts.principal import Principal
from control_plane.accounts.tables import Membership, Team, User
from control_plane.audit import repository as audit
from control_plane.context import Context
from control_plane.database import Database
from control_plane.instances import repository, service
from control_plane.instances.reconcile import reconcile
from control_plane.instances.schemas import InstanceView, LaunchRequest
from control_plane.instances.tables import Instance, Replica
from control_plane.settings import Settings
from tests.support.clock import FakeClock
from tests.support.fake_provider import FakeProvider

STARTER = "slipway/starter"


@dataclass
class Plant:
    """Everything a test of instances touches."""

    context: Context
    clock: FakeClock
    provider: FakeProvider
    principal: Principal
    hints: list[tuple[str, UUID]] = field(default_factory=list)

    @classmethod
    def make(cls, database: Database, database_url: str, clock: FakeClock, folder: Path) -> Plant:
        """One with a team and a user, and no instance."""
        settings = Settings(data_dir=folder / "data", database_url=database_url, secret_key="the root secret of a test")
        provider, hints = FakeProvider(), list[tuple[str, UUID]]()
        context = Context(settings, database, clock, {"fake": provider}, lambda task, row: hints.append((task, row)))
        return cls(context, clock, provider, add_principal(context, "ada"), hints)

    def launch(self, model: str = STARTER, **fields: object) -> InstanceView:
        """Launch through the service."""
        return service.launch(self.context, self.principal, LaunchRequest.model_validate({"model": model, **fields}))

    def reconcile(self, instance_id: UUID) -> float | None:
        """What one hint does."""
        return reconcile(self.context, instance_id, probe=self.provider.probe)

    def run_until(self, instance_id: UUID, *phases: str, within_s: float = 600) -> InstanceView:
        """Do what workers and sweeps do, moving the clock to when something is due, until one of ``phases``.

        :raises AssertionError: it does not come about.
        """
        start = self.clock.now()
        while (instance := self.get(instance_id)).phase not in phases:
            elapsed = (self.clock.now() - start).total_seconds()
            assert elapsed < within_s, f"still {instance.phase} after {elapsed} s: {instance.reason}"
            assert self.step(instance_id), f"{instance.phase} ({instance.reason}) and nothing is due"
        return instance

    def step(self, instance_id: UUID) -> bool:
        """Move the clock to the next step and do it; False when none is due."""
        due = self.get(instance_id).next_attempt_at
        if due is None:
            return False
        self.clock.advance(max(0.0, (due - self.clock.now()).total_seconds()))
        self.reconcile(instance_id)
        return True

    def get(self, instance_id: UUID) -> InstanceView:
        """The instance as its owner sees it."""
        return service.get(self.context, self.principal, instance_id)

    def row(self, instance_id: UUID) -> Instance:
        """The row itself."""
        with self.context.database.reading() as session:
            return repository.fresh(session, instance_id)

    def replicas(self, instance_id: UUID) -> list[Replica]:
        """Its replicas' rows."""
        with self.context.database.reading() as session:
            return repository.replicas(session, [instance_id])

    def change(self, instance_id: UUID, change: Callable[[Instance], None]) -> None:
        """Change the row behind everybody's back."""
        with self.context.database.transaction() as session:
            row = repository.fresh(session, instance_id)
            change(row)
            session.add(row)

    def timeline(self, instance_id: UUID) -> list[str]:
        """Actions, oldest first."""
        with self.context.database.reading() as session:
            return [event.action for event in audit.of_object(session, instance_id)]

    def name_of(self, instance_id: UUID, ordinal: int = 0) -> str:
        """What the provider knows a replica by."""
        return self.replicas(instance_id)[ordinal].resource_name


def add_principal(context: Context, name: str) -> Principal:
    """A user in a team of their own."""
    now = context.clock.now()
    with context.database.transaction() as session:
        team = Team(name=f"team of {name}", created_at=now)
        user = User(email=f"{name}@example.org", name=name, created_at=now)
        session.add_all([team, user])
        session.flush()
        session.add(Membership(user_id=user.id, team_id=team.id))
    return Principal(user.id, team.id, name, is_admin=True, via="session", actor=f"user:{user.id}")
