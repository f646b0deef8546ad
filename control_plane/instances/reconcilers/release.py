"""Giving back what an instance holds: asked for ever, believed only when the provider has said "absent" twice."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from control_plane.instances.reconcilers.situation import MAX_BACKOFF_S, Situation
from control_plane.instances.replicas import ReplicaValues, new_boot
from control_plane.instances.tables import Replica
from control_plane.providers.base import ReplicaState

logger = logging.getLogger(__name__)

#: Seconds that requests in flight get before their engine is killed.
DRAIN_S = 30.0
#: Seconds after which a replica that still is not gone deserves a person's attention.
ALERT_AFTER_S = 120.0
#: A listing can lag: one "absent" may be an old answer.
ABSENT_ENOUGH = 2


@dataclass(frozen=True)
class Release:
    """How far it is. ``left`` counts replicas that are not surely gone; ``gone`` are rows that are not needed more."""

    values: Mapping[UUID, ReplicaValues]
    left: int
    overdue: bool
    gone: tuple[UUID, ...] = ()
    #: Why "absent" is not believed now.
    doubt: str | None = None

    @property
    def progress(self) -> str:
        """For people."""
        noun = "engine" if self.left == 1 else "engines"
        late = f"; this takes longer than {ALERT_AFTER_S:g} s, see the provider" if self.overdue else ""
        doubt = f"; {self.doubt}" if self.doubt else ""
        return f"waiting for {self.left} {noun} to finish requests and end{late}{doubt}"


def release(situation: Situation) -> Release:
    """Ask the provider to delete what is still there.

    :raises ProviderUnavailable: nothing is known; try again.
    """
    parts = [release_one(situation, replica) for replica in situation.replicas]
    values = {part.replica.id: part.values for part in parts}
    left = sum(not part.gone for part in parts)
    overdue = left > 0 and situation.seconds_in_phase() > ALERT_AFTER_S
    if overdue:
        logger.error("instance %s: %d replicas are not gone", situation.instance.id, left)
    if left == 0:
        # The next start, if there is one, is another boot; and what is gone has no address.
        generation = situation.instance.generation
        retired = tuple(replica.id for replica in situation.replicas if replica.retiring_since is not None)
        kept = {replica.id: new_boot(generation) for replica in situation.replicas if replica.id not in retired}
        return Release(kept, 0, overdue, retired)
    doubt = next((part.doubt for part in parts if part.doubt), None)
    return Release(values, left, overdue, doubt=doubt)


@dataclass(frozen=True)
class Part:
    """How far the release of one replica is."""

    replica: Replica
    values: ReplicaValues
    doubt: str | None = None

    @property
    def gone(self) -> bool:
        """Whether it is surely gone."""
        return self.values["absent_count"] >= ABSENT_ENOUGH


def release_one(situation: Situation, replica: Replica) -> Part:
    """Ask the provider to delete one replica, or count that it says "absent".

    :raises ProviderUnavailable: nothing is known; try again.
    """
    provider = situation.provider(replica.provider)
    status = provider.find(replica.resource_name)
    if status.state is ReplicaState.ABSENT:
        count = replica.absent_count + 1
        if count == 1 and not provider.exact:
            # What was created a moment ago may be there and not be listed yet.
            provider.delete(replica.resource_name, boot_token=replica.boot_token, grace_s=DRAIN_S)
        if count >= ABSENT_ENOUGH and not provider.exact and (brake := situation.brake(provider)).on:
            return Part(replica, {"ready": False, "absent_count": ABSENT_ENOUGH - 1}, brake.reason)
        return Part(replica, {"ready": False, "absent_count": count})
    provider.delete(replica.resource_name, boot_token=status.boot_token, grace_s=DRAIN_S)
    values: ReplicaValues = {"ready": False, "absent_count": 0}
    if status.state is ReplicaState.EXITED:
        values["last_exit_code"] = status.exit_code
    return Part(replica, values)


def pause_s(situation: Situation) -> float:
    """Look often at first, then less and less."""
    return min(MAX_BACKOFF_S, max(0.3, situation.seconds_in_phase() / 10))
