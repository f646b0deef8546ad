"""A control plane that can be interrupted anywhere, over an imaginary place that fails: for random histories."""

from __future__ import annotations

import shutil
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import event
from sqlmodel import Session, select

from control_plane.context import Context
from control_plane.database import Database
from control_plane.instances import reconcile as reconciler
from control_plane.instances.change import RECONCILE
from control_plane.instances.engine_probe import Probe
from control_plane.instances.lifecycle import Phase
from control_plane.instances.schemas import InstanceView, LaunchRequest
from control_plane.instances.service import launch
from control_plane.instances.silence import HUNG_S
from control_plane.instances.tables import Instance, Replica
from control_plane.keys import installation_id
from control_plane.providers.base import ReplicaSpec, ReplicaState, ReplicaStatus
from control_plane.providers.fake.calls import LocalCalls
from control_plane.providers.fake.faults import Operation, Trouble
from control_plane.providers.fake.hardware import Hardware
from control_plane.providers.fake.place import Place
from control_plane.providers.fake.provider import FakeProvider
from control_plane.reaper import check as reaper
from control_plane.settings import Settings
from tests.support.clock import FakeClock
from tests.support.instances import STARTER, add_principal
from tests.support.interleaving import reach

#: Two nodes that together have room for three instances of three replicas, and one more; one alone has not.
NODES = Hardware("fake-cpu", "Two machines", "cpu", {"node-1": 5, "node-2": 5}, 64 << 30, 3.6)
#: Seconds without an answer for which no engine is given up; somewhat less than the reconciler's own number.
_PATIENCE_S = 0.9 * HUNG_S
#: Steps that follow each other without a pause: more than a launch has.
_STEPS_AT_ONCE = 6
#: Phases in which an instance's replicas are meant to go.
_ENDING = {Phase.STOPPING, Phase.STOPPED, Phase.FAILED, Phase.TERMINATING, Phase.TERMINATED}


class InterruptibleDatabase(Database):
    """Transactions with points before their beginning and after their end; knows whether this thread is inside one."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._inside = threading.local()

        @event.listens_for(self.engine, "connect")
        def _without_sync(connection: Any, _record: Any) -> None:
            connection.execute("PRAGMA synchronous=OFF")

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        reach("before a transaction")
        with super().transaction() as session, self._noting():
            yield session
        reach("after a commit")

    @contextmanager
    def reading(self) -> Iterator[Session]:
        with super().reading() as session, self._noting():
            yield session

    @property
    def in_use(self) -> bool:
        """Whether this thread holds a session."""
        return getattr(self._inside, "depth", 0) > 0

    @contextmanager
    def _noting(self) -> Iterator[None]:
        self._inside.depth = getattr(self._inside, "depth", 0) + 1
        try:
            yield
        finally:
            self._inside.depth -= 1


class InterruptibleProvider(FakeProvider):
    """Calls with points before and after each; the world judges them."""

    def __init__(self, world: World) -> None:
        super().__init__(LocalCalls(world.place, pause=world.clock.advance), installation_id(world.settings))
        self._world = world

    def create(self, spec: ReplicaSpec) -> ReplicaStatus:
        reach("before create")
        self._world.before_create(spec)
        status = super().create(spec)
        reach("after create")
        return status

    def find(self, name: str) -> ReplicaStatus:
        self._world.before_call("find")
        status = super().find(name)
        reach("after find")
        return status

    def list_owned(self) -> list[ReplicaStatus]:
        self._world.before_call("list_owned")
        statuses = super().list_owned()
        reach("after list")
        return statuses

    def delete(self, name: str, *, boot_token: str | None, grace_s: float) -> None:
        reach("before delete")
        self._world.before_delete(name, boot_token)
        super().delete(name, boot_token=boot_token, grace_s=grace_s)
        reach("after delete")


class World:
    """Rows, a place, time, and a record of what gave the control plane a right to end an engine."""

    def __init__(self, template: Path, folder: Path) -> None:
        file = shutil.copy(template, folder / "rows.db")
        url = f"sqlite:///{file}"
        self.clock = FakeClock()
        self.place = Place((NODES,), now_s=self.clock.elapsed_s, clock=self.clock)
        self.hints: list[tuple[str, UUID]] = []
        #: Boots that may be ended, and why: they did wrong, or somebody wished it.
        self.excused: dict[str, str] = {}
        #: Why instances may fail.
        self.may_fail: defaultdict[UUID, list[str]] = defaultdict(list)
        self.may_all_fail = False
        self._hung_since: dict[str, float] = {}
        self._hung_s: defaultdict[str, float] = defaultdict(float)
        #: Boots that may begin a second time: their create lands late, or the place has forgotten that they began.
        self.may_begin_again: set[str] = set()
        self.violations: list[str] = []
        self.database = InterruptibleDatabase(url)
        self.settings = Settings(data_dir=folder / "data", database_url=url, secret_key="the root secret of a test")
        provider = InterruptibleProvider(self)
        self.context = Context(self.settings, self.database, self.clock, {"fake": provider}, self.note_hint)
        self.principal = add_principal(self.context, "ada")

    def close(self) -> None:
        """Give back what the database holds."""
        self.database.engine.dispose()

    def note_hint(self, task: str, row_id: UUID) -> None:
        """A message to the workers."""
        self.hints.append((task, row_id))

    # What processes do.

    def launch(self, replicas: int) -> InstanceView:
        """A user launches the starter."""
        request = LaunchRequest.model_validate({"model": STARTER, "replicas": {"min": replicas, "max": replicas}})
        return launch(self.context, self.principal, request)

    def reconcile(self, instance_id: UUID) -> float | None:
        """A worker gets a hint."""
        return reconciler.reconcile(self.context, instance_id, probe=self.probe)

    def deliver(self, task: str, row_id: UUID) -> float | None:
        """What a worker does with a message; seconds until it would send itself the next."""
        if task == RECONCILE:
            return self.reconcile(row_id)
        reaper.check(self.context, row_id)
        return None

    def work_off(self, task: str, row_id: UUID) -> None:
        """What follows from a message, until a step has to wait."""
        for _ in range(_STEPS_AT_ONCE):
            if self.deliver(task, row_id) != 0.0:
                return

    def turn(self, seconds: float) -> None:
        """Time passes, and what is due is done."""
        self.clock.advance(seconds)
        self.sweep()
        while self.hints:
            self.work_off(*self.hints.pop(0))

    def sweep(self) -> None:
        """What the scheduler does: hints for all that is due."""
        reconciler.sweep(self.context)
        reaper.sweep(self.context)

    def probe(self, url: str, boot_token: str) -> Probe:
        """What an engine says over HTTP."""
        reach("before a probe")
        answer = self.place.answer(url.rpartition("/")[2])
        if answer is None:
            return Probe.SILENT
        if answer.boot_token != boot_token:
            return Probe.STRANGER
        return Probe.READY if answer.is_ready else Probe.NOT_READY

    # What is true.

    def rows(self) -> list[Instance]:
        """All instances, oldest first."""
        with self.database.reading() as session:
            return sorted(session.exec(select(Instance)), key=lambda row: row.id)

    def replicas(self) -> list[Replica]:
        """All replicas' rows."""
        with self.database.reading() as session:
            return list(session.exec(select(Replica)))

    def running(self) -> list[ReplicaStatus]:
        """What runs at the place."""
        present = self.place.present()  # in the order of their creation
        return [status for status in present.values() if status.state is ReplicaState.RUNNING]

    def excuse(self, boot_token: str | None, why: str) -> None:
        """From now on this boot may be ended."""
        self.excused.setdefault(boot_token or "", why)

    def excuse_instance(self, instance_id: UUID, why: str) -> None:
        """A wish: every present boot of the instance may be ended."""
        for replica in self.replicas():
            if replica.instance_id == instance_id:
                self.excuse(replica.boot_token, why)

    def blame(self, status: ReplicaStatus, why: str) -> None:
        """A boot did wrong: it may be ended, and its instance may fail."""
        self.excuse(status.boot_token, why)
        self.allow_failure(status.name, why)

    def allow_failure(self, name: str, why: str) -> None:
        """The instance of this replica may fail."""
        for replica in self.replicas():
            if replica.resource_name == name:
                self.may_fail[replica.instance_id].append(why)

    def hang(self, status: ReplicaStatus, *, hung: bool) -> None:
        """An engine stops answering, or answers again; only after a while may it be ended for that."""
        token, now = status.boot_token or "", self.clock.elapsed_s()
        since = self._hung_since.pop(token, None)
        if since is not None:
            self._hung_s[token] += now - since
        if hung:
            self._hung_since[token] = now
            self.allow_failure(status.name, "hung")
        self.place.hang(status.name, hung=hung)

    def hung_s(self, boot_token: str) -> float:
        """For how long a boot has not answered, in all."""
        now = self.clock.elapsed_s()
        return self._hung_s[boot_token] + now - self._hung_since.get(boot_token, now)

    # What is judged at each call.

    def before_call(self, operation: str) -> None:
        """No session may be held while the provider is asked."""
        if self.database.in_use:
            self.violations.append(f"{operation} is called inside a transaction")

    def before_create(self, spec: ReplicaSpec) -> None:
        """Its row is there before it is."""
        self.before_call("create")
        if spec.name not in {replica.resource_name for replica in self.replicas()}:
            self.violations.append(f"{spec.name} is created and no row knows it")
        planned = self.place.faults.planned.get(Operation.CREATE)
        if planned and planned[0].trouble is Trouble.LATE:
            self.may_begin_again.add(spec.boot_token)
        if planned and planned[0].trouble is Trouble.REFUSED:
            self.may_fail[UUID(spec.labels["instance"])].append("a create was refused")

    def before_delete(self, name: str, boot_token: str | None) -> None:
        """An engine that is well may be ended only for a reason."""
        self.before_call("delete")
        status = self.place.status(name)
        if status is None or boot_token not in {None, status.boot_token}:
            return  # nothing comes of it
        if status.state is not ReplicaState.RUNNING or status.boot_token in self.excused:
            return
        if self.hung_s(status.boot_token or "") >= _PATIENCE_S:
            return
        with self.database.reading() as session:
            row = session.exec(select(Replica).where(Replica.resource_name == name)).one_or_none()
            phase = session.get_one(Instance, row.instance_id).phase if row is not None else None
        if row is None or row.retiring_since is not None or phase in _ENDING:
            return
        if row.boot_token != status.boot_token and status.boot_token in self.may_begin_again:
            return  # it landed when its row had gone, or named another boot, for good reasons
        relation = "its row's" if row.boot_token == status.boot_token else "another than its row's"
        self.violations.append(f"{name} is well and deleted for no reason ({phase}; its boot is {relation})")
