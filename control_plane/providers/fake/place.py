"""The imaginary place: replicas with states, on nodes with devices. What is true here, whatever a faulty call says."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from control_plane.clock import SYSTEM_CLOCK, Clock
from control_plane.providers.base import FetchSpec, ProviderError, ReplicaSpec, ReplicaState, ReplicaStatus
from control_plane.providers.fake.faults import Faults
from control_plane.providers.fake.hardware import CPU, Hardware, Inventory
from control_plane.providers.fake.records import EnginePlan, History, Log, Record

#: Where engines would listen that no server publishes.
UNPUBLISHED = "http://fake.invalid"


class EngineAnswer(NamedTuple):
    """What an engine that answers says of itself."""

    boot_token: str
    is_ready: bool


class Boot(NamedTuple):
    """One start of a replica."""

    name: str
    boot_token: str


class Place:
    """Replicas by name: the same name twice gives one. Safe to use from several threads.

    ::

        create ─► pending ─► running ─► exited | lost ─► (deleted) absent
                  no room     │  ▲                │
                              │  └────────────────┘ its node comes back
                              └─► ending, while it drains ─► absent

    :param now_s: the place's own time in seconds, which never goes backwards; only this decides when things happen.
    :param clock: what time it is for people (``created_at``).
    """

    def __init__(
        self,
        hardware: tuple[Hardware, ...] = (CPU,),
        *,
        now_s: Callable[[], float] = time.monotonic,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.faults = Faults()
        self.base_url = UNPUBLISHED
        #: How engines without a plan of their own behave.
        self.default_plan = EnginePlan()
        #: Every boot that began here, in order.
        self.boots: list[Boot] = []
        self._lock = threading.RLock()
        self._history = History()
        self._inventory = Inventory(hardware)
        self._now_s, self._clock = now_s, clock
        self._skipped_s = 0.0
        self._records: dict[str, Record] = {}
        #: Names of records that time may change: those in a long list that it cannot are not looked at each time.
        self._moving: dict[str, None] = {}
        self._logs: defaultdict[str, Log] = defaultdict(Log)
        self._plans: dict[str, EnginePlan] = {}
        self._late: list[tuple[float, ReplicaSpec | FetchSpec]] = []

    # What is here.

    def now(self) -> float:
        """The place's time in seconds."""
        return self._now_s() + self._skipped_s

    def advance(self, seconds: float) -> None:
        """Let the place's time run ahead: what takes time is done sooner."""
        with self._lock:
            self._skipped_s += seconds

    def inventory(self) -> Inventory:
        """What hardware there is, and is free now."""
        with self._lock:
            self._settle()
            return self._inventory

    def present(self) -> dict[str, ReplicaStatus]:
        """Everything that is here now, by name."""
        with self._lock:
            self._settle()
            return {name: self._status(record) for name, record in self._records.items()}

    def status(self, name: str) -> ReplicaStatus | None:
        """What is true of ``name``; None where it is not here."""
        with self._lock:
            self._settle()
            record = self._records.get(name)
            return self._status(record) if record is not None else None

    def known(self, name: str) -> ReplicaStatus | None:
        """What was true of ``name`` so long ago as answers lag."""
        with self._lock:
            self._settle()
            return self._history.at(name, self.now() - self.faults.find_lag_s)

    def owned(self, owner: str) -> list[ReplicaStatus]:
        """What carried this owner's tag so long ago as listings lag."""
        with self._lock:
            self._settle()
            return self._history.owned_at(owner, self.now() - self.faults.listing_lag_s)

    def log(self, name: str) -> Log:
        """What the engines of this name wrote, over all their boots."""
        with self._lock:
            self._settle()
            return self._logs[name]

    # What is asked of it.

    def create(self, spec: ReplicaSpec | FetchSpec) -> ReplicaStatus:
        """Start ``spec``, or return what has its name.

        :raises ProviderError: there is no such hardware, or no room now and ``refuse_when_full``.
        """
        with self._lock:
            self._settle()
            present = self._records.get(spec.name)
            if present is not None:
                return self._status(present)
            record = self._land(spec)
            self._settle()
            return self._status(record)

    def create_later(self, spec: ReplicaSpec | FetchSpec, seconds: float) -> None:
        """Start ``spec`` in so many seconds, if its name is free then."""
        with self._lock:
            self._late.append((self.now() + seconds, spec))

    def delete(self, name: str, *, boot_token: str | None, grace_s: float) -> None:
        """Begin to end ``name``, if that is the boot meant; an order that was given is not given anew."""
        with self._lock:
            self._settle()
            record = self._records.get(name)
            if record is None or boot_token not in {None, record.boot_token}:
                return
            if record.ending_since is None and not self.faults.deletes_are_ignored:
                record.ending_since, record.grace_s = self.now(), grace_s
                self._moving[name] = None
                self._settle()

    # What happens to replicas.

    def plan_engine(self, name: str, plan: EnginePlan) -> None:
        """How every later boot of ``name`` behaves."""
        with self._lock:
            self._plans[name] = plan

    def exit(self, name: str, code: int, last_words: str = "") -> None:
        """The process of ``name`` ends by itself."""
        with self._lock:
            record = self._records[name]
            self._logs[name].append(last_words)
            record.exit_code, record.plan = code, EnginePlan()
            self._stop(record, ReplicaState.EXITED, f"exit code {code}")

    def hang(self, name: str, *, hung: bool = True) -> None:
        """The engine of ``name`` answers nobody any more; ``hung=False`` ends that."""
        with self._lock:
            self._records[name].is_hung = hung

    def preempt(self, name: str) -> None:
        """The devices of ``name`` go to somebody who pays more."""
        with self._lock:
            record = self._records[name]
            self._stop(record, ReplicaState.LOST, f"preempted on {record.node}")

    def lose_node(self, node: str) -> None:
        """``node`` is not heard of any more, and so nothing on it."""
        with self._lock:
            self._settle()
            self._inventory.down.add(node)
            for record in self._on(node, ReplicaState.RUNNING):
                record.returns = True
                self._stop(record, ReplicaState.LOST, f"node {node} is gone")

    def return_node(self, node: str) -> None:
        """``node`` is back, with what ran on it and was not deleted meanwhile."""
        with self._lock:
            self._settle()
            self._inventory.down.discard(node)
            for record in self._on(node, ReplicaState.LOST):
                if record.returns:
                    kind = self._inventory.kind(record.hardware_id)
                    if kind is not None:
                        self._inventory.hold(kind, node, record.units)
                    record.state, record.reason, record.returns = ReplicaState.RUNNING, None, False
                    self._note(record)

    def forget_everything(self) -> None:
        """The place loses all replicas, and that there ever were any."""
        with self._lock:
            for record in list(self._records.values()):
                self._remove(record)

    # What replicas do.

    def answer(self, name: str) -> EngineAnswer | None:
        """What the engine of ``name`` says of itself; None where nothing answers."""
        with self._lock:
            self._settle()
            record = self._records.get(name)
            if record is None or record.state is not ReplicaState.RUNNING:
                return None
            if record.is_hung or self.faults.engines_are_silent:
                return None
            loaded = self.now() >= record.started_s + record.plan.ready_after_s
            return EngineAnswer(record.boot_token, loaded and not self.faults.engines_never_get_ready)

    def accept(self, name: str, api_key: str) -> str | None:
        """A request reaches the engine of ``name``: the model's name, or None where the key is wrong.

        A request that was accepted must end with :meth:`finish`.
        """
        with self._lock:
            record = self._records.get(name)
            if record is None or record.api_key != api_key:
                return None
            record.in_flight += 1
            return record.served_model_name

    def finish(self, name: str) -> None:
        """A request that the engine of ``name`` had accepted is over."""
        with self._lock:
            record = self._records.get(name)
            if record is not None:
                record.in_flight = max(0, record.in_flight - 1)

    # How it moves on.

    def _settle(self) -> None:
        """Do what is due by now."""
        now = self.now()
        due = [spec for when, spec in self._late if when <= now]
        self._late = [(when, spec) for when, spec in self._late if when > now]
        for spec in due:
            if spec.name not in self._records:
                with suppress(ProviderError):  # nobody is there any more to whom it could be told
                    self._land(spec)
        for name in list(self._moving):
            record = self._records[name]
            self._move(record, now)
            if not _is_moving(record):
                self._moving.pop(name, None)

    def _land(self, spec: ReplicaSpec | FetchSpec) -> Record:
        record = self._admit(spec)
        self._records[spec.name] = record
        self._moving[spec.name] = None
        self._note(record)
        self._place(record)
        return record

    def _move(self, record: Record, now: float) -> None:
        if record.ending_since is not None and self._has_ended(record, now):
            self._remove(record)
        elif record.state is ReplicaState.PENDING and record.ending_since is None:
            self._place(record)
        elif record.ends_by_itself(now) and record.plan.exit_code is not None:
            self.exit(record.name, record.plan.exit_code, record.plan.last_words)

    def _has_ended(self, record: Record, now: float) -> bool:
        elapsed = now - (record.ending_since or 0.0)
        if elapsed < self.faults.delete_takes_s:
            return False
        has_drained = record.in_flight == 0 and not record.plan.ignores_end
        return record.state is not ReplicaState.RUNNING or has_drained or elapsed >= record.grace_s

    def _admit(self, spec: ReplicaSpec | FetchSpec) -> Record:
        kind = self._inventory.kind(spec.hardware_id)
        if kind is None:
            known = ", ".join(kind.id for kind in self._inventory.hardware)
            raise ProviderError(f"there is no hardware {spec.hardware_id!r} here", f"Choose one of: {known}.")
        units = kind.units(spec.accelerator_count) if isinstance(spec, ReplicaSpec) else 0
        if units > kind.per_replica_limit:
            detail = f"no node of {kind.id} has {units} devices; the largest has {kind.per_replica_limit}"
            raise ProviderError(detail, "Ask for fewer devices.")
        if self.faults.refuse_when_full and max(self._inventory.free(kind).values(), default=0) < units:
            raise ProviderError(f"no room: all of {kind.id} is in use", "Stop something, or ask for more quota.")
        return Record(
            spec.name,
            spec.owner,
            spec.boot_token,
            spec.hardware_id,
            units,
            spec.api_key if isinstance(spec, ReplicaSpec) else spec.token,
            spec.served_model_name if isinstance(spec, ReplicaSpec) else "",
            dict(spec.labels),
            self._plans.get(spec.name, self.default_plan),
            self._clock.now(),
        )

    def _place(self, record: Record) -> None:
        kind = self._inventory.kind(record.hardware_id)
        if kind is None:
            return
        node = self._inventory.take(kind, record.units)
        if node is None:
            reason = f"waiting for {record.units} free of {kind.id}"
            if record.reason != reason:
                record.reason = reason
                self._note(record)
            return
        record.state, record.reason, record.node = ReplicaState.RUNNING, None, node
        record.started_s = self.now()
        self.boots.append(Boot(record.name, record.boot_token))
        self._logs[record.name].append(f"ready {self._url(record)}\n")
        self._note(record)

    def _stop(self, record: Record, state: ReplicaState, reason: str) -> None:
        self._give_back(record)
        record.state, record.reason, record.in_flight = state, reason, 0
        self._note(record)

    def _remove(self, record: Record) -> None:
        self._give_back(record)
        del self._records[record.name]
        self._moving.pop(record.name, None)
        self._history.note(self.now(), record, None)

    def _give_back(self, record: Record) -> None:
        kind = self._inventory.kind(record.hardware_id)
        if record.state is ReplicaState.RUNNING and kind is not None and record.node is not None:
            self._inventory.hold(kind, record.node, -record.units)

    def _note(self, record: Record) -> None:
        self._history.note(self.now(), record, self._status(record))

    def _on(self, node: str, state: ReplicaState) -> list[Record]:
        return [record for record in self._records.values() if (record.node, record.state) == (node, state)]

    def _status(self, record: Record) -> ReplicaStatus:
        return record.status(self._url(record))

    def _url(self, record: Record) -> str:
        return f"{self.base_url}/replicas/{record.name}"


def _is_moving(record: Record) -> bool:
    return record.state is ReplicaState.PENDING or record.ending_since is not None or record.plan.exit_code is not None
