"""One look at one replica that has been started: is it there, does it answer, does it get on?"""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from control_plane.instances.engine_probe import Probe
from control_plane.instances.reconcilers.crashes import Crash, after_exit, after_silence, last_words
from control_plane.instances.reconcilers.situation import Situation
from control_plane.instances.replicas import ReplicaValues
from control_plane.instances.tables import Replica
from control_plane.providers.base import ReplicaState

#: A running replica that is silent for so long gets no more requests.
UNREACHABLE_S = 10.0
#: … and for so long is started anew.
HUNG_S = 120.0
#: ``last_seen_at`` of a healthy replica is written no more often.
_SEEN_EVERY_S = 10.0


@dataclass(frozen=True)
class Look:
    """What was seen. ``values`` are what changes in the row; ``crash`` when this boot is over."""

    replica: Replica
    ready: bool
    values: ReplicaValues = field(default_factory=ReplicaValues)
    crash: Crash | None = None

    @property
    def condition(self) -> str | None:
        """What is to be said about it."""
        return self.values.get("condition", self.replica.condition)


def look(situation: Situation, replica: Replica) -> Look:
    """Look at ``replica``.

    :raises ProviderUnavailable: nothing is known.
    """
    status = situation.provider(replica.provider).find(replica.resource_name)
    if status.state is not ReplicaState.RUNNING or status.boot_token != replica.boot_token:
        return Look(replica, ready=False, crash=after_exit(situation, replica, status))
    answer = situation.probe(status.url, replica.boot_token) if status.url else Probe.SILENT
    if answer is Probe.READY:
        return _well(situation, replica, status.url)
    if replica.ready_at is None:
        return _loading(situation, replica, status.url)
    return _unreachable(situation, replica)


def _silent_for_s(situation: Situation, replica: Replica) -> float:
    seen = replica.last_seen_at or replica.started_at or replica.created_at
    return (situation.now - seen).total_seconds()


def _well(situation: Situation, replica: Replica, url: str | None) -> Look:
    if replica.ready and replica.condition is None and _silent_for_s(situation, replica) < _SEEN_EVERY_S:
        return Look(replica, ready=True)
    now = situation.now
    values: ReplicaValues = {"ready": True, "condition": None, "url": url, "last_seen_at": now}
    if replica.ready_at is None:
        values["ready_at"] = now
    return Look(replica, True, values)


def _loading(situation: Situation, replica: Replica, url: str | None) -> Look:
    """Time alone is no verdict, large models take long: only an engine that says nothing new is given up."""
    words = last_words(situation, replica, lines=1)[:300] or "loading"
    if words != replica.condition:
        return Look(replica, False, {"condition": words, "url": url, "last_seen_at": situation.now})
    if _silent_for_s(situation, replica) < situation.context.settings.start_timeout_s:
        return Look(replica, ready=False)
    limit = situation.context.settings.start_timeout_s
    return Look(replica, False, crash=after_silence(situation, replica, f"no sign of progress for {limit:g} s"))


def _unreachable(situation: Situation, replica: Replica) -> Look:
    silent_s = _silent_for_s(situation, replica)
    if silent_s >= HUNG_S:
        return Look(replica, False, crash=after_silence(situation, replica, f"no answer for {silent_s:.0f} s"))
    still_used = replica.ready and silent_s < UNREACHABLE_S
    condition = f"not answering for {silent_s:.0f} s"
    return Look(replica, still_used, {"ready": still_used, "condition": condition})


def row_values(looks: list[Look]) -> dict[UUID, ReplicaValues]:
    """What the looks change in the rows: the next boot's beginning where this one is over."""
    return {seen.replica.id: seen.crash.values if seen.crash else seen.values for seen in looks}
