"""Verdicts that depend on nothing but a name, a boot and a row."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from control_plane.instances.lifecycle import Phase
from control_plane.instances.replicas import MAX_RESTARTS
from control_plane.providers.base import ReplicaState, ReplicaStatus
from control_plane.reaper.match import KnownDownload, KnownInstance, KnownReplica, Rows, Verdict, judge

NOW = datetime(2026, 1, 1, tzinfo=UTC)
#: Fixed: they are in the names of tests, which have to be the same in every process.
INSTANCE, DOWNLOAD = UUID(int=0x6149EF5EAF484B1781BD401787F404EB), UUID(int=0xF7A1436269174F0CA1A74FD5348DFE8E)
REPLICA, AGENT = f"slipway-{INSTANCE.hex}-0", f"slipway-fetch-{DOWNLOAD.hex}"


def verdict(name: str, rows: Rows, boot: str = "mine", **labels: str) -> Verdict:
    return judge(ReplicaStatus(name, ReplicaState.RUNNING, boot, labels=labels), rows).verdict


def rows(
    phase: str = Phase.RUNNING,
    *,
    boot: str | None = "mine",
    started: bool = True,
    restarts: int = 0,
    pending: bool = True,
    let_go: bool = False,
) -> Rows:
    """One instance of generation 4, with one replica unless ``boot`` is None."""
    instance = KnownInstance(INSTANCE, uuid4(), "chat", phase, 4, NOW if pending else None)
    replica = KnownReplica(INSTANCE, boot or "", NOW if started else None, restarts)
    names = frozenset({REPLICA}) if let_go else frozenset[str]()
    return Rows({INSTANCE: instance}, {REPLICA: replica} if boot else {}, {}, names)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (rows(), Verdict.MATCHED),
        (rows(boot="newer"), Verdict.LEFTOVER),
        (rows(boot="newer", started=False), Verdict.MATCHED),
        (rows(boot="newer", started=False, restarts=MAX_RESTARTS + 1), Verdict.LEFTOVER),
        (rows(Phase.REQUESTED, boot="newer", started=False), Verdict.LEFTOVER),
        (rows(Phase.STOPPING, boot="newer"), Verdict.MATCHED),
        (rows(Phase.TERMINATING, boot="newer"), Verdict.MATCHED),
        (rows(Phase.FAILED), Verdict.MATCHED),
        (rows(Phase.FAILED, pending=False), Verdict.LEFTOVER),
        (rows(Phase.STOPPED), Verdict.LEFTOVER),
        (rows(Phase.TERMINATED), Verdict.LEFTOVER),
        (rows("hibernating", boot="newer"), Verdict.MATCHED),
        (rows(boot=None), Verdict.UNKNOWN),
        (rows(boot=None, let_go=True), Verdict.LEFTOVER),
        (rows(Phase.TERMINATING, boot=None), Verdict.LEFTOVER),
        (Rows({}, {}, {}), Verdict.UNKNOWN),
    ],
)
def test_replicas(known: Rows, expected: Verdict) -> None:
    assert verdict(REPLICA, known) is expected


@pytest.mark.parametrize(
    ("generation", "expected"),
    [("3", Verdict.LEFTOVER), ("4", Verdict.UNKNOWN), ("5", Verdict.UNKNOWN), ("x", Verdict.UNKNOWN)],
)
def test_a_replica_without_a_row_by_its_generation(generation: str, expected: Verdict) -> None:
    assert verdict(REPLICA, rows(boot=None), generation=generation) is expected


@pytest.mark.parametrize(
    ("state", "boot", "expected"),
    [
        ("downloading", "mine", Verdict.MATCHED),
        ("queued", "newer", Verdict.LEFTOVER),
        ("done", "mine", Verdict.LEFTOVER),
        ("cancelled", "mine", Verdict.LEFTOVER),
        (None, "mine", Verdict.UNKNOWN),
    ],
)
def test_agents(state: str | None, boot: str, expected: Verdict) -> None:
    downloads = {DOWNLOAD: KnownDownload("org/model", state, boot)} if state else {}
    assert verdict(AGENT, Rows({}, {}, downloads)) is expected


@pytest.mark.parametrize("name", ["", "slipway", f"{REPLICA}-1", f"{AGENT}0", REPLICA.upper(), f"x{REPLICA}"])
def test_names_that_are_none_of_ours(name: str) -> None:
    assert verdict(name, rows()) is Verdict.UNKNOWN
