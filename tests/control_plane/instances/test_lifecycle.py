"""Phases: every legal move is made and told, every other is refused and leaves no trace."""

from __future__ import annotations

from itertools import product

from control_plane.audit import repository as audit
from control_plane.errors import Conflict
from control_plane.instances import repository
from control_plane.instances.lifecycle import ACTIVE_PHASES, LEGAL_MOVES, Phase, transition
from control_plane.instances.reconcile import STEPS
from tests.support.instances import Plant

#: The arcs of the diagram in the design, written down independently of the table.
DIAGRAM = {
    "requested": {"downloading", "provisioning"},
    "downloading": {"provisioning"},
    "provisioning": {"starting"},
    "starting": {"running", "provisioning"},
    "running": {"sleeping", "provisioning"},
    "sleeping": {"running", "provisioning"},
    "failed": {"requested"},
    "stopping": {"stopped"},
    "stopped": {"requested"},
    "terminating": {"terminated"},
    "terminated": set(),
}
UNDER_WAY = {"requested", "downloading", "provisioning", "starting", "running", "sleeping"}


def _legal(origin: str, to: str) -> bool:
    if to in DIAGRAM[origin]:
        return True
    if to == "terminating":
        return origin not in {"terminating", "terminated"}
    if to == "stopping":
        return origin in UNDER_WAY | {"failed"}
    return to == "failed" and origin in UNDER_WAY


def test_every_pair_of_phases(plant: Plant) -> None:
    instance_id = plant.launch().id
    for origin, to in product(Phase, Phase):
        plant.change(instance_id, lambda row, origin=origin: setattr(row, "phase", origin))  # type: ignore[misc]
        before = len(plant.timeline(instance_id))
        plant.clock.advance(1.5)
        try:
            with plant.context.database.transaction() as session:
                row = repository.fresh(session, instance_id)
                transition(session, plant.clock, row, to, reason="because", actor="system:test")
        except Conflict:
            assert not _legal(origin, to), f"{origin} → {to} should be legal"
            assert plant.row(instance_id).phase == origin
            assert len(plant.timeline(instance_id)) == before
        else:
            assert _legal(origin, to), f"{origin} → {to} should be refused"
            row = plant.row(instance_id)
            assert (row.phase, row.reason, row.since) == (to, "because", plant.clock.now())
            assert (row.next_attempt_at is not None) == (to in ACTIVE_PHASES)
            with plant.context.database.reading() as session:
                event = audit.of_object(session, instance_id)[-1]
            assert (event.action, event.data["from"], event.data["to"]) == (f"instance.{to}", origin, to)


def test_nothing_is_stuck_by_construction() -> None:
    for phase in Phase:
        reachable, edge = {phase}, [phase]
        while edge:
            new = LEGAL_MOVES[edge.pop()] - reachable
            reachable |= new
            edge += new
        assert Phase.TERMINATED in reachable
    assert ACTIVE_PHASES - set(STEPS) == {Phase.SLEEPING}, "a phase with work to do needs somebody who does it"
