"""A user's change to an instance, within one transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from sqlmodel import Session

from control_plane.accounts.principal import Principal
from control_plane.audit import repository as audit
from control_plane.context import Context
from control_plane.database import after_commit
from control_plane.downloads import service as downloads
from control_plane.downloads.tables import Download
from control_plane.errors import Conflict, NotFound
from control_plane.instances import billing, repository
from control_plane.instances.lifecycle import Phase, legal_moves, transition
from control_plane.instances.replicas import new_boot
from control_plane.instances.schemas import InstanceView
from control_plane.instances.tables import Desired, Instance
from control_plane.instances.views import view

RECONCILE = "instances.reconcile"


@dataclass(frozen=True)
class Change:
    """Who changes which instance; what it does is committed, or not, with ``session``."""

    session: Session
    context: Context
    principal: Principal
    instance: Instance

    def demand(self, to: Phase, verb: str) -> None:
        """Refuse what the present phase does not permit, in words.

        :raises Conflict: there is no arc to ``to``.
        """
        instance = self.instance
        if to not in legal_moves(instance.phase):
            detail = f"{instance.name} is {instance.phase} and cannot be {verb} now"
            raise Conflict(detail, f"Wait until it is no longer {instance.phase}.")

    def move(self, to: Phase, reason: str) -> None:
        """Move the instance and tell a worker."""
        reason = f"{reason} by {self.principal.name}"
        transition(self.session, self.context.clock, self.instance, to, reason=reason, actor=self.principal.actor)
        self.hint()

    def begin_again(self, reason: str) -> None:
        """Back to the first phase; weights that are here are used."""
        self.demand(Phase.REQUESTED, "started")
        self.reset_replicas()
        self.instance.desired = Desired.RUNNING
        self.move(Phase.REQUESTED, reason)

    def begin_phase_again(self, reason: str) -> None:
        """The same phase from its beginning, and at once: a pause after a crash is cut short."""
        self.reset_replicas()
        self.instance.reason, self.instance.next_step = f"{reason} by {self.principal.name}", None
        # A step that is under way finds another beginning of the phase and drops what it did for the old one.
        self.instance.since = self.instance.next_attempt_at = self.context.clock.now()
        self.instance.attempts = 0
        self.record("restarted", self.instance.reason)
        self.hint()

    def reset_replicas(self) -> None:
        """The next boot of every replica that stays is a new one, and earlier crashes do not count."""
        replicas = repository.replicas(self.session, [self.instance.id])
        leaving = [replica for replica in replicas if replica.retiring_since is not None]
        billing.settle(self.instance, billing.held(replicas), billing.held(leaving), self.context.clock.now())
        for replica in replicas:
            if replica not in leaving:
                values = new_boot(self.instance.generation) | {"restarts": 0}
                repository.update_replica(self.session, replica.id, values)

    def charge(self) -> None:
        """Add what the present run cost until now: from here on another price holds."""
        replicas, now = repository.replicas(self.session, [self.instance.id]), self.context.clock.now()
        self.instance.cost_accrued = billing.cost_so_far(self.instance, billing.held(replicas), now)
        if self.instance.billing_since is not None:
            self.instance.billing_since = now

    def begin_generation(self, reason: str) -> None:
        """The engines are to be replaced, one after another, by such as the instance wants now."""
        self.instance.generation += 1
        self.record("restarted", f"{reason} by {self.principal.name}")
        self.look_now()

    def look_now(self) -> None:
        """Have the rows acted on at once."""
        if self.instance.next_attempt_at is not None:
            self.instance.next_attempt_at = self.context.clock.now()
            self.hint()

    def cancel_download(self) -> None:
        """An instance that is going away no longer waits for its weights; others may."""
        self.session.flush()
        download_id = self.instance.download_id
        download = self.session.get(Download, download_id) if download_id else None
        if download is not None:
            downloads.cancel(self.session, self.context, download)

    def record(self, action: str, message: str) -> None:
        """Write an audit event that is no move."""
        audit.record(
            self.session,
            self.context.clock,
            team_id=self.instance.team_id,
            actor=self.principal.actor,
            action=f"instance.{action}",
            object_type="instance",
            object_id=self.instance.id,
            message=message,
        )

    def hint(self) -> None:
        """Tell a worker, once this is committed."""
        instance_id = self.instance.id
        after_commit(self.session, lambda: self.context.hint(RECONCILE, instance_id))


def changed(context: Context, principal: Principal, instance_id: UUID, apply: Callable[[Change], None]) -> InstanceView:
    """Change an instance of the caller's team in one transaction, and show it.

    :raises NotFound: there is none, or it is another team's.
    """
    with context.database.transaction() as session:
        instance = found(repository.find_for_update(session, principal.team_id, instance_id))
        apply(Change(session, context, principal, instance))
        session.flush()
        return view(session, context, instance)


def found(instance: Instance | None) -> Instance:
    """``instance``.

    :raises NotFound: there is none.
    """
    if instance is None:
        raise NotFound("there is no such instance")
    return instance
