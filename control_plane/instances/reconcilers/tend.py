"""Looking after an instance's replicas, the same in every phase in which they ought to run.

::

    plan (rows) ─► those that leave: release ─► those that run: look ─► those that do not: start, when they may
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from uuid import UUID

from control_plane.errors import SlipwayError, Unavailable
from control_plane.instances.lifecycle import Phase
from control_plane.instances.reconcilers.crashes import Crash
from control_plane.instances.reconcilers.fleet import Notice, Plan, active, plan
from control_plane.instances.reconcilers.look import Look, look
from control_plane.instances.reconcilers.release import release_one
from control_plane.instances.reconcilers.situation import MAX_BACKOFF_S, Event, Outcome, Situation, fail
from control_plane.instances.reconcilers.start import refused, start
from control_plane.instances.replicas import ReplicaValues, is_doomed, is_given_up, merged
from control_plane.instances.silence import seconds_since
from control_plane.instances.tables import Replica

#: Between the moment from which a replica gets no new requests and its end: a request that was on its way there when
#: it was told to leave has arrived by then.
LEAVE_AFTER_S = 1.0


@dataclass
class Tended:
    """What was seen and done. ``values`` and ``gone`` change rows; ``after`` are the replicas as they are then."""

    situation: Situation
    plan: Plan
    values: dict[UUID, ReplicaValues]
    gone: list[UUID] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    #: What a start waits for, and what went wrong with one.
    waits: list[str] = field(default_factory=list)
    troubles: list[SlipwayError] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    @cached_property
    def after(self) -> list[Replica]:
        """The replicas that stay, as they are once the changes are written."""
        return active(merged(replica, self.values.get(replica.id)) for replica in self.situation.replicas)

    @property
    def ready(self) -> int:
        """How many answer requests."""
        return sum(replica.ready for replica in self.after)

    @property
    def started(self) -> int:
        """How many have an engine process."""
        return sum(replica.started_at is not None for replica in self.after)

    @property
    def leaving(self) -> int:
        """How many are on their way out."""
        return len(self.situation.replicas) - len(self.after) - len(self.gone)

    @property
    def crashes(self) -> list[Crash]:
        """The boots that are over."""
        return [seen.crash for seen in self.looks if seen.crash]

    @property
    def held_back(self) -> str | None:
        """Why nothing is done about what looks gone."""
        return next((seen.held_back for seen in self.looks if seen.held_back), None)

    @property
    def pause_s(self) -> float:
        """Seconds until the next start is due; 0 when one is, or none waits."""
        waiting = [replica for replica in self.after if replica.started_at is None and not is_given_up(replica)]
        return min((restart_pause_s(self.situation, replica) for replica in waiting), default=0.0)

    def words(self) -> Notice | None:
        """What is to be told of single replicas, what is worst first; None when all is well."""
        for seen in self.looks:
            if seen.crash is not None:
                return Notice(self._named(seen.replica, seen.crash.reason), seen.crash.next_step)
        if self.plan.notice:
            return self.plan.notice
        for replica in self.after:
            if replica.condition:
                return Notice(self._named(replica, replica.condition))
        return Notice(self.waits[0]) if self.waits else None

    def outcome(self, notice: Notice, *, look_again_in_s: float, move_to: Phase | None = None) -> Outcome:
        """All that was done, with what to tell about it."""
        return Outcome(
            notice.reason,
            notice.next_step,
            move_to=move_to,
            look_again_in_s=0.0 if self.plan.new else look_again_in_s,
            replicas=self.values,
            new_replicas=self.plan.new,
            gone=tuple(self.gone),
            events=tuple(self.events),
        )

    def down(self) -> Outcome:
        """No engine is left: begin again, after a pause where one is due, or give up where all of them are doomed."""
        worst = max(self.crashes, key=lambda crash: crash.values.get("restarts", 0), default=None)
        if self.after and all(is_doomed(replica) for replica in self.after):
            condition = next((replica.condition for replica in self.after if replica.condition), None)
            reason = worst.reason if worst else condition or "the engine does not come up"
            return fail(reason, worst.next_step if worst else "See the instance's log.", self)
        reason = worst.reason if worst else self.situation.instance.reason
        next_step = worst.next_step if worst else self.situation.instance.next_step
        pause = 0.0 if self.started else self.pause_s
        return self.outcome(Notice(reason, next_step), look_again_in_s=pause, move_to=Phase.PROVISIONING)

    def _named(self, replica: Replica, words: str) -> str:
        return words if len(self.situation.replicas) == 1 else f"replica {replica.ordinal}: {words}"


def tend(situation: Situation) -> Tended:
    """Look after every replica of the instance.

    :raises ProviderUnavailable: nothing is known of those that run.
    """
    planned = plan(situation.instance, situation.replicas, situation.now)
    tended = Tended(situation, planned, dict(planned.values))
    untouched = [replica for replica in situation.replicas if replica.id not in planned.values]
    for replica in untouched:
        if replica.retiring_since is not None:
            _let_go(tended, replica)
        elif replica.started_at is not None:
            _look(tended, replica)
    _start(tended, [replica for replica in untouched if _may_start(situation, replica)])
    return tended


def restart_pause_s(situation: Situation, replica: Replica) -> float:
    """Seconds until a replica may be started; what is further ahead than any pause was written by another clock."""
    if replica.restart_at is None:
        return 0.0
    pause = (replica.restart_at - situation.now).total_seconds()
    return pause if 0 < pause <= MAX_BACKOFF_S else 0.0


def _may_start(situation: Situation, replica: Replica) -> bool:
    waits = replica.started_at is None and replica.retiring_since is None
    return waits and not is_given_up(replica) and restart_pause_s(situation, replica) <= 0


def _let_go(tended: Tended, replica: Replica) -> None:
    situation = tended.situation
    if 0 <= (situation.now - (replica.retiring_since or situation.now)).total_seconds() < LEAVE_AFTER_S:
        return
    part = release_one(situation, replica)
    tended.values[replica.id] = part.values
    if part.gone:
        tended.gone.append(replica.id)


def _look(tended: Tended, replica: Replica) -> None:
    seen = look(tended.situation, replica)
    tended.looks.append(seen)
    tended.values[replica.id] = seen.values
    if seen.crash is not None and seen.crash.lost:
        message = f"replica {replica.ordinal}: {seen.crash.reason}"
        tended.events.append(
            Event("replica_lost", message, {"node": replica.node, "ready_s": _ready_s(tended, replica)})
        )


def _ready_s(tended: Tended, replica: Replica) -> float:
    return round(seconds_since(replica.ready_at, tended.situation.now), 1)


def _start(tended: Tended, due: Sequence[Replica]) -> None:
    """An error with one loses nothing: what was started before it is found by its boot token."""
    if not due:
        return
    held = tended.situation.weights()
    for replica in due:
        try:
            if held is None:
                raise Unavailable("the weights are not there any more", "Stop and start the instance.")
            started = start(tended.situation, replica, held)
        except SlipwayError as error:
            tended.troubles.append(error)
            tended.values[replica.id] = refused(tended.situation, replica, error)
            continue
        tended.values[replica.id] = started.values
        if started.wait:
            tended.waits.append(started.wait)
