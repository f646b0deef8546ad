"""Random histories: kills, lost replies, lags, losses, jumping clocks and users, in any order, between any two points.

Each history ends with all faults over and time passing; then the provider's list is what the live rows say, nothing
runs twice, nothing is stuck, and no engine was ended without a reason. ``make test-lifecycle`` runs thousands.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import ClassVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from control_plane.errors import Conflict
from control_plane.instances import service
from control_plane.instances.lifecycle import ACTIVE_PHASES, Phase
from control_plane.instances.schemas import InstanceUpdate, RestartMode
from control_plane.providers.fake.faults import Fault, Faults, Operation, Trouble
from control_plane.providers.fake.records import EnginePlan
from tests.support.interleaving import Process
from tests.support.lifecycle import NODES, World
from tests.support.settled import RESTING, confirm_losses, pause_s, unsettled

#: Of the default suite; ``make test-lifecycle`` asks for more.
SCHEDULES = 60
RULES_PER_SCHEDULE = 40

_TO_THE_END = 10_000
#: Seconds after the end of all faults in which everything has to be settled (less than a clock jumps, so that a wrong
#: clock does not only delay it), and the turns for which it has to stay so.
_SETTLED_WITHIN_S, _CALM_TURNS = 1500.0, 4
#: Seconds after which an administrator confirms what the brake holds back.
_CONFIRM_AFTER_S = 100.0
_WHICH = st.integers(0, 7)
#: Seconds that an engine loads, and that an answer of the provider lags.
_LOAD_S = st.sampled_from((0.0, 4.0, 90.0))
_FIND_LAG_S = st.sampled_from((0.0, 1.0, 3.0))
#: How far a process gets before it stands still: mostly to its end.
_POINTS = st.one_of(st.just(_TO_THE_END), st.integers(0, 9))
#: Wishes by which present engines may end.
_WISHES: dict[str, Callable[..., object]] = {
    "start": service.start,
    "stop": service.stop,
    "restart, rolling": partial(service.restart, mode=RestartMode.ROLLING),
    "restart, replacing": partial(service.restart, mode=RestartMode.REPLACE),
    "terminate": service.terminate,
}


class Histories(RuleBasedStateMachine):
    """One history. Rules are what the world does to the control plane; the invariants hold after each of them."""

    #: Where a migrated database can be copied from.
    template: ClassVar[Path]
    #: How many histories there were, and how many rules by kind, for the report.
    histories: ClassVar[int] = 0
    executed: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        Histories.histories += 1
        self._folder = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)  # noqa: S108
        self.world = World(self.template, Path(self._folder.name))
        self.instances: list[UUID] = []
        self.most_replicas: dict[UUID, int] = {}
        self.processes: list[Process] = []
        self.forward_jumps_s = 0.0

    # Users.

    @initialize(
        replicas=st.lists(st.integers(1, 3), min_size=1, max_size=2),
        load_s=_LOAD_S,
        lag_s=_FIND_LAG_S,
        seconds=st.sampled_from((0.0, 20.0)),
    )
    def begin(self, replicas: list[int], load_s: float, lag_s: float, seconds: float) -> None:
        """There are instances, new or already running, at a place that is quick or slow."""
        self.world.place.default_plan = EnginePlan(ready_after_s=load_s)
        self.world.place.faults.find_lag_s = lag_s
        for count in replicas:
            self.launch(count)
        for _ in range(int(seconds / 4)):
            self.world.turn(4.0)

    @precondition(lambda self: len(self.instances) < 3)
    @rule(replicas=st.integers(1, 3))
    def launch(self, replicas: int) -> None:
        self._count("launch")
        launched = self.world.launch(replicas)
        self.instances.append(launched.id)
        self.most_replicas[launched.id] = replicas

    @precondition(lambda self: self.instances)
    @rule(which=_WHICH, wish=st.sampled_from(sorted(_WISHES)), points=_POINTS)
    def wish(self, which: int, wish: str, points: int) -> None:
        """A web server is asked; it may be killed on the way."""
        instance_id = self.instances[which % len(self.instances)]
        self._ask(
            instance_id,
            wish,
            lambda: _WISHES[wish](self.world.context, self.world.principal, instance_id),
            points,
        )

    @precondition(lambda self: self.instances)
    @rule(which=_WHICH, replicas=st.integers(1, 3), points=_POINTS)
    def scale(self, which: int, replicas: int, points: int) -> None:
        """A user wants more replicas, or fewer."""
        instance_id = self.instances[which % len(self.instances)]
        self.most_replicas[instance_id] = max(self.most_replicas[instance_id], replicas)
        wanted = InstanceUpdate.model_validate({"replicas": {"min": replicas, "max": replicas}})
        self._ask(
            instance_id,
            "scale",
            lambda: service.update(self.world.context, self.world.principal, instance_id, wanted),
            points,
        )

    # Workers and schedulers.

    @rule(points=_POINTS)
    def work(self, points: int) -> None:
        """A worker takes a message."""
        self._count("message")
        if self.world.hints:
            task, row_id = self.world.hints.pop(0)
            self._start(f"worker: {task}", lambda: self.world.deliver(task, row_id), points)

    @rule(points=_POINTS)
    def sweep(self, points: int) -> None:
        self._count("sweep")
        self._start("scheduler", self.world.sweep, points)

    @rule(which=_WHICH, points=_POINTS)
    def resume(self, which: int, points: int) -> None:
        """A process that stood still goes on, however late that is."""
        if self.processes:
            self._count("resume")
            self.processes[which % len(self.processes)].resume(points)

    @rule(which=_WHICH)
    def kill(self, which: int) -> None:
        if self.processes:
            self._count("kill")
            self.processes.pop(which % len(self.processes)).kill()

    @precondition(lambda self: self.instances)
    @rule(which=_WHICH, points=st.integers(1, 9), seconds=st.sampled_from((25.0, 60.0)))
    def a_worker_stalls(self, which: int, points: int, seconds: float) -> None:
        """A worker stands still in the middle of a step, others go on when its lease is over, and then it wakes."""
        self._count("a worker stalls")
        instance_id = self.instances[which % len(self.instances)]
        stalled = Process("stalled worker", lambda: self.world.reconcile(instance_id))
        stalled.resume(points)
        for _ in range(5):
            self.world.turn(seconds / 5)
        stalled.resume(_TO_THE_END)

    @precondition(lambda self: self.instances)
    @rule(which=_WHICH, second_thought=st.sampled_from(sorted(_WISHES)), late_s=st.sampled_from((5.0, 60.0)))
    def a_user_thinks_twice(self, which: int, second_thought: str, late_s: float) -> None:
        """The creates of a first wish land when a second one is under way or done."""
        self.world.place.faults.plan(Operation.CREATE, Fault(Trouble.LATE, late_s), times=2)
        self.wish(which, "restart, replacing", _TO_THE_END)
        self.world.turn(1.0)
        self.world.turn(2.0)
        self.wish(which, second_thought, _TO_THE_END)
        self.world.turn(2.0)

    @rule()
    def lose_messages(self) -> None:
        """The broker is emptied."""
        self._count("lost messages")
        self.world.hints.clear()

    @rule(seconds=st.sampled_from((0.5, 2.0, 5.0, 30.0)), turns=st.integers(1, 6))
    def time_passes(self, seconds: float, turns: int) -> None:
        """Schedulers and workers that live do what is due."""
        self._count("time passes")
        for _ in range(turns):
            self.world.turn(seconds)

    @rule(hours=st.sampled_from((-1, 1)))
    def clock_jumps(self, hours: int) -> None:
        self._count("clock jumps")
        self.forward_jumps_s += max(0, hours * 3600)
        self.world.clock.jump(hours * 3600)

    # The provider.

    @rule(
        operation=st.sampled_from(list(Operation)),
        trouble=st.sampled_from((Trouble.UNANSWERED, Trouble.LOST_REPLY, Trouble.SLOW)),
        seconds=st.sampled_from((1.0, 25.0)),
    )
    def call_fails(self, operation: Operation, trouble: Trouble, seconds: float) -> None:
        self._count(f"{operation}: {trouble}")
        self.world.place.faults.plan(operation, Fault(trouble, seconds))

    @rule(seconds=st.sampled_from((1.0, 10.0, 100.0)))
    def create_lands_late(self, seconds: float) -> None:
        self._count("create: late")
        self.world.place.faults.plan(Operation.CREATE, Fault(Trouble.LATE, seconds))

    @rule()
    def create_is_refused(self) -> None:
        self._count("create: refused")
        self.world.place.faults.plan(Operation.CREATE, Fault(Trouble.REFUSED, detail="no quota for that"))

    @rule(refused=st.booleans())
    def a_full_place_refuses(self, refused: bool) -> None:
        """What finds no room waits, or is refused."""
        self._count("no room: waits or refused")
        self.world.place.faults.refuse_when_full = refused
        if refused:
            self.world.may_all_fail = True

    @rule(find_s=_FIND_LAG_S, list_s=st.sampled_from((0.0, 5.0, 40.0)))
    def answers_lag(self, find_s: float, list_s: float) -> None:
        self._count("answers lag")
        self.world.place.faults.find_lag_s, self.world.place.faults.listing_lag_s = find_s, list_s

    @rule(seconds=st.sampled_from((0.0, 10.0, 100.0)), ignored=st.booleans())
    def deletes(self, seconds: float, ignored: bool) -> None:
        self._count("deletes take time or are ignored")
        self.world.place.faults.delete_takes_s = seconds
        self.world.place.faults.deletes_are_ignored = ignored

    @rule(away=st.booleans())
    def reach_of_the_provider(self, away: bool) -> None:
        self._count("provider away or back")
        self.world.place.faults.away = away

    @rule(seconds=_LOAD_S)
    def engines_load(self, seconds: float) -> None:
        self._count("loading takes time")
        self.world.place.default_plan = EnginePlan(ready_after_s=seconds)

    # Engines and nodes.

    @precondition(lambda self: self.world.running())
    @rule(which=_WHICH, code=st.sampled_from((1, 2, -9, 0)))
    def engine_exits(self, which: int, code: int) -> None:
        self._count("engine exits")
        running = self.world.running()
        status = running[which % len(running)]
        self.world.blame(status, f"exit code {code}")
        self.world.place.exit(status.name, code, "last words\n")

    @precondition(lambda self: self.world.running())
    @rule(which=_WHICH, hung=st.booleans())
    def engine_hangs(self, which: int, hung: bool) -> None:
        self._count("engine hangs or recovers")
        running = self.world.running()
        status = running[which % len(running)]
        self.world.hang(status, hung=hung)

    @precondition(lambda self: self.world.running())
    @rule(which=_WHICH)
    def preemption(self, which: int) -> None:
        self._count("preemption")
        running = self.world.running()
        status = running[which % len(running)]
        self.world.excuse(status.boot_token, "preempted")
        self.world.place.preempt(status.name)

    @rule(node=st.sampled_from(("node-1", "node-2")))
    def node_is_lost(self, node: str) -> None:
        self._count("node lost")
        for status in self.world.running():
            if status.node == node:
                self.world.excuse(status.boot_token, "its node was lost")
        self.world.place.lose_node(node)

    @rule(node=st.sampled_from(("node-1", "node-2")))
    def node_returns(self, node: str) -> None:
        self._count("node returns")
        self.world.place.return_node(node)

    @rule()
    def everything_is_forgotten(self) -> None:
        self._count("place forgets everything")
        for replica in self.world.replicas():
            self.world.excuse(replica.boot_token, "it was gone once")
            # A create whose outcome is unknown is looked up, found absent, and sent again.
            self.world.may_begin_again.add(replica.boot_token)
        self.world.place.forget_everything()

    # What always holds.

    @invariant()
    def nothing_was_done_without_a_reason(self) -> None:
        """No engine that answers was ended or came to be twice; sessions are not held while providers are asked."""
        world = self.world
        assert not world.violations, world.violations
        begun = Counter(boot.boot_token for boot in world.place.boots)
        twice = {token for token, times in begun.items() if times > 1} - world.may_begin_again
        assert not twice, f"begun twice: {twice}"

    @invariant()
    def the_books_are_in_order(self) -> None:
        """Every phase says why and what next, nothing fails without a cause, no bill is wrong, nobody has too many."""
        world = self.world
        items = service.list_instances(world.context, world.principal).items if self.instances else []
        hours = (world.clock.elapsed_s() + self.forward_jumps_s) / 3600
        staying = {
            replica.resource_name: replica.instance_id for replica in world.replicas() if not replica.retiring_since
        }
        engines = Counter(staying[status.name] for status in world.running() if status.name in staying)
        for item in items:
            most = self.most_replicas[item.id]
            assert item.reason, item
            assert item.phase not in ACTIVE_PHASES or item.next_attempt_at is not None, f"{item.phase}: {item.reason}"
            may_fail = world.may_all_fail or world.may_fail[item.id]
            assert item.phase != Phase.FAILED or may_fail, f"failed for no cause: {item.reason}"
            assert 0 <= item.cost_so_far <= (most + 1) * NODES.price_per_hour * hours + 1e-6, item.cost_so_far
            assert engines[item.id] <= most + 1, f"{engines[item.id]} engines of at most {most}"

    # The end.

    def teardown(self) -> None:
        try:
            self._settle()
        finally:
            self.world.close()
            self._folder.cleanup()

    def _settle(self) -> None:
        """Faults end, processes are killed, time passes; then the books agree, and stay so."""
        world = self.world
        for process in self.processes:
            process.kill()
        world.place.faults = Faults()
        world.place.default_plan = EnginePlan()
        for status in world.running():
            world.hang(status, hung=False)
        for node in NODES.nodes:
            world.place.return_node(node)
        began_s = world.clock.elapsed_s()
        calm_turns = 0
        while calm_turns < _CALM_TURNS:
            self.world.turn(pause_s(self.world))
            self.nothing_was_done_without_a_reason()
            calm_turns = 0 if unsettled(self.world) else calm_turns + 1
            elapsed_s = world.clock.elapsed_s() - began_s
            assert elapsed_s < _SETTLED_WITHIN_S, f"after {elapsed_s:g} s: {unsettled(self.world)}"
            if elapsed_s > _CONFIRM_AFTER_S:
                confirm_losses(self.world)
        self.the_books_are_in_order()
        self._nothing_is_billed_that_rests()

    def _nothing_is_billed_that_rests(self) -> None:
        def costs() -> dict[UUID, float]:
            items = service.list_instances(self.world.context, self.world.principal).items
            return {item.id: item.cost_so_far for item in items if item.phase in RESTING}

        before = costs()
        self.world.clock.advance(3600)
        assert costs() == before

    # Helpers.

    def _count(self, what: str) -> None:
        self.executed[what] += 1

    def _ask(self, instance_id: UUID, wish: str, call: Callable[[], object], points: int) -> None:
        def ask() -> None:
            with suppress(Conflict):  # an honest answer to a wish that comes at the wrong time
                call()

        self._count(f"user: {wish}")
        self.world.excuse_instance(instance_id, f"asked to {wish}")
        self._start(f"web: {wish}", ask, points)

    def _start(self, title: str, work: Callable[[], object], points: int) -> None:
        if len(self.processes) >= 4:
            self.processes.pop(0).resume(_TO_THE_END)
        process = Process(title, work)
        self.processes.append(process)
        process.resume(points)
        self.processes = [process for process in self.processes if not process.done]


def run(template: Path, schedules: int, *, derandomize: bool) -> None:
    """So many histories; the first that ends badly is made short and raised.

    :param template: a migrated SQLite file.
    :param derandomize: the same ones every time.
    """
    Histories.template = template
    options = settings(
        max_examples=schedules,
        stateful_step_count=RULES_PER_SCHEDULE,
        deadline=None,
        derandomize=derandomize,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Histories, settings=options)


@pytest.mark.timeout(280)
def test_random_histories_end_with_the_rows_and_the_provider_agreeing(migrated_sqlite: Path) -> None:
    run(migrated_sqlite, SCHEDULES, derandomize=True)
    assert Histories.histories >= SCHEDULES
