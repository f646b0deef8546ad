"""Plans of replicas: rows in, changes of rows out; played to the end, they always get there without a gap."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from control_plane.instances.lifecycle import Phase
from control_plane.instances.reconcilers.fleet import Plan, active, plan
from control_plane.instances.replicas import MAX_RESTARTS, merged, new_replicas
from control_plane.instances.tables import Instance, Replica

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _instance(replica_count: int, generation: int = 0, phase: Phase = Phase.RUNNING) -> Instance:
    ids = {"id": uuid4(), "team_id": uuid4(), "created_by": uuid4()}
    words = {"name": "n", "slug": "s", "model": "m", "provider": "fake", "reason": "because"}
    times = {"since": NOW, "created_at": NOW}
    return Instance(
        **ids, **words, **times, replica_count=replica_count, generation=generation, phase=phase, price_per_hour=1
    )


def _serving(instance: Instance, number: int) -> list[Replica]:
    rows = new_replicas(instance, (), number, NOW)
    return [merged(row, {"started_at": NOW, "ready": True, "ready_at": NOW}) for row in rows]


def _played(replicas: list[Replica], change: Plan) -> list[Replica]:
    """The rows after a plan, and after who leaves has left."""
    changed = [merged(replica, change.values.get(replica.id)) for replica in replicas]
    return [*(row for row in changed if row.retiring_since is None), *change.new]


def _brought_up(replicas: list[Replica]) -> list[Replica]:
    return [merged(row, {"started_at": NOW, "ready": True, "ready_at": NOW}) for row in replicas]


def test_what_is_missing_is_made_and_what_is_too_many_leaves() -> None:
    instance = _instance(3)
    first = plan(instance, [], NOW)
    assert [row.ordinal for row in first.new] == [0, 1, 2]
    assert not plan(instance, first.new, NOW).new

    instance.replica_count = 1
    rows = _brought_up(list(first.new))
    rows[0].ready = False
    leaving = plan(instance, rows, NOW).values
    assert set(leaving) == {rows[0].id, rows[2].id}, "who does not serve goes first, then the latest"


def test_a_leaver_keeps_its_ordinal_until_it_is_gone() -> None:
    instance = _instance(2)
    rows = _serving(instance, 2)
    rows[0].retiring_since = NOW
    (new,) = plan(instance, rows, NOW).new
    assert new.ordinal == 2
    (new,) = plan(instance, rows[1:], NOW).new
    assert new.ordinal == 0


@given(wanted=st.integers(1, 5), old=st.integers(0, 6))
def test_a_roll_ends_with_new_ones_only_and_never_serves_with_fewer(wanted: int, old: int) -> None:
    instance = _instance(wanted)
    rows = _serving(instance, old)
    instance.generation = 1
    for _turn in count():
        assert _turn <= 4 * (wanted + old), "it gets there"
        change = plan(instance, rows, NOW)
        if not change.new and not change.values:
            break
        leaving = sum("retiring_since" in values for values in change.values.values())
        assert leaving <= 1 or not change.rolling
        rows = _played(rows, change)
        assert len(rows) <= max(old, wanted) + 1
        assert sum(row.ready for row in rows) >= min(old, wanted), "those that serve are as many as before"
        rows = _brought_up(rows)
    assert [row.generation for row in rows] == [1] * wanted
    assert not change.rolling


def test_one_at_a_time_and_not_before_the_newcomer_serves() -> None:
    instance = _instance(2)
    rows = _serving(instance, 2)
    instance.generation = 1
    (new,) = plan(instance, rows, NOW).new
    assert new.ordinal == 2
    waiting = plan(instance, [*rows, new], NOW)
    assert (waiting.new, waiting.values, waiting.rolling) == ((), {}, True)
    there = merged(new, {"started_at": NOW, "ready": True})
    (leaver,) = plan(instance, [*rows, there], NOW).values
    leaving = [merged(row, {"retiring_since": NOW} if row.id == leaver else {}) for row in rows]
    assert not plan(instance, [*leaving, there], NOW).new, "the next comes when that one is gone"
    assert plan(instance, [*active(leaving), there], NOW).new


def test_without_room_an_old_one_leaves_first_unless_it_is_the_only_one() -> None:
    for wanted in (1, 2):
        instance = _instance(wanted)
        rows = _serving(instance, wanted)
        instance.generation = 1
        (new,) = plan(instance, rows, NOW).new
        full = {"silent_s": 29.0, "condition": "Resources"}
        assert not plan(instance, [*rows, merged(new, full)], NOW).values, "a queue may move"
        change = plan(instance, [*rows, merged(new, full | {"silent_s": 30.0})], NOW)
        if wanted == 1:
            assert not change.values
            assert change.notice
            assert "no room for a new engine beside the old one: Resources" in change.notice.reason
            assert "mode=replace" in (change.notice.next_step or "")
        else:
            assert len(change.values) == 1
            assert change.notice is None


def test_a_newcomer_that_crashes_again_and_again_stops_the_roll() -> None:
    instance = _instance(2)
    rows = _serving(instance, 2)
    instance.generation = 1
    (new,) = plan(instance, rows, NOW).new
    dead = merged(new, {"restarts": MAX_RESTARTS + 1, "last_exit_code": 1, "condition": "it exploded"})
    change = plan(instance, [*rows, dead], NOW)
    assert (change.new, change.values) == ((), {})
    assert change.notice
    assert "the old ones serve on: it exploded" in change.notice.reason

    instance.generation = 2  # somebody changed what it named
    renewed = plan(instance, [*rows, dead], NOW).values[dead.id]
    assert renewed["restarts"] == 0
    assert renewed["generation"] == 2
    assert renewed["boot_token"] != dead.boot_token


def test_who_serves_nobody_is_renewed_in_place() -> None:
    instance = _instance(1, phase=Phase.STARTING)
    (loading,) = _serving(instance, 1)
    loading.ready = False
    instance.generation = 1
    assert plan(instance, [loading], NOW).values[loading.id]["started_at"] is None
    instance.phase = Phase.RUNNING
    assert plan(instance, [loading], NOW).values == {}, "a running one may come back: it is replaced, not cut off"
    assert len(plan(instance, [loading], NOW).new) == 1
