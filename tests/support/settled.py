"""What is as it should be in the end: the provider's list is what the live rows say, and nothing is under way."""

from __future__ import annotations

from control_plane.instances import brake
from control_plane.instances.lifecycle import Phase
from control_plane.instances.replicas import is_given_up
from control_plane.instances.tables import Instance, Replica
from control_plane.providers.base import ReplicaState
from tests.support.lifecycle import World

RESTING = {Phase.STOPPED, Phase.FAILED, Phase.TERMINATED}


def unsettled(world: World) -> list[str]:
    """What is not as it should be in the end."""
    rows, replicas, present = world.rows(), world.replicas(), world.place.present()
    trouble = [f"{row.phase}: {row.reason}" for row in rows if row.phase not in {*RESTING, Phase.RUNNING}]
    resting = [row for row in rows if row.phase in RESTING and row.next_attempt_at is not None]
    trouble += [f"{row.phase}, and not done with it: {row.reason}" for row in resting]
    serving = {row.id for row in rows if row.phase == Phase.RUNNING}
    # One of several that crashed too often rests until somebody restarts the instance; its last words are kept.
    given_up = {r.resource_name for r in replicas if r.instance_id in serving and is_given_up(r)}
    live = {(r.resource_name, r.boot_token) for r in replicas if r.instance_id in serving and not is_given_up(r)}
    there = {(name, status.boot_token) for name, status in present.items() if name not in given_up}
    trouble += [f"{name} is there and no live row wants it" for name, _ in there - live]
    trouble += [f"{name} is wanted and not there" for name, _ in live - there]
    for row in rows:
        if row.phase == Phase.RUNNING:
            trouble += _unsettled_fleet(row, [r for r in replicas if r.instance_id == row.id])
    for name, status in present.items():
        expected = ReplicaState.EXITED if name in given_up else ReplicaState.RUNNING
        trouble += [f"{name} is {status.state}"] if status.state is not expected else []
    return trouble


def _unsettled_fleet(row: Instance, own: list[Replica]) -> list[str]:
    well = [replica for replica in own if not is_given_up(replica)]
    trouble = [f"replica {r.ordinal}: {r.condition}" for r in well if not r.ready or r.retiring_since is not None]
    if len(well) < len(own):
        return trouble  # a newcomer that does not come up has stopped the roll: the old ones serve on
    if len(own) != row.replica_count:
        trouble.append(f"{len(own)} of {row.replica_count} replicas: {row.reason}")
    return trouble + [f"replica {r.ordinal} is old" for r in own if r.generation != row.generation]


def confirm_losses(world: World) -> None:
    """An administrator looks at what the brake holds back."""
    for name, provider in world.context.providers.items():
        if brake.judge(world.context, provider).on:
            brake.confirm_loss(world.context, world.principal, name)


def pause_s(world: World) -> float:
    """Seconds until something may be due: never longer than schedulers wait when all is well."""
    now = world.clock.now()
    due = [row.next_attempt_at for row in world.rows() if row.next_attempt_at is not None]
    soonest = min(((when - now).total_seconds() for when in due), default=10.0)
    return min(10.0, max(3.0, soonest))
