"""What the imaginary place remembers of a replica: the record, its log, and what was known of it when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from control_plane.providers.base import ReplicaState, ReplicaStatus

_LOG_BYTES = 1 << 20


@dataclass(frozen=True)
class EnginePlan:
    """How the engine of a replica will behave.

    :ivar ready_after_s: seconds that loading takes.
    :ivar exit_code: it ends with this code ``exit_after_s`` seconds after its start; None lets it live.
    :ivar last_words: what it writes before it ends.
    :ivar ignores_end: it does not end when asked to, only when its grace is over.
    """

    ready_after_s: float = 0.0
    exit_code: int | None = None
    exit_after_s: float = 0.0
    last_words: str = ""
    ignores_end: bool = False


@dataclass
class Record:
    """One replica, or one download agent, that was created and is not gone.

    :ivar returns: it was lost with its node, and lives again when the node comes back.
    :ivar ending_since: when its deletion was ordered, and ``grace_s`` how long it may take.
    """

    name: str
    owner: str
    boot_token: str
    hardware_id: str
    units: int
    api_key: str = field(repr=False)
    served_model_name: str
    labels: Mapping[str, str]
    plan: EnginePlan
    created_at: datetime
    state: ReplicaState = ReplicaState.PENDING
    reason: str | None = None
    node: str | None = None
    exit_code: int | None = None
    started_s: float = 0.0
    is_hung: bool = False
    returns: bool = False
    in_flight: int = 0
    ending_since: float | None = None
    grace_s: float = 0.0

    def ends_by_itself(self, now: float) -> bool:
        """Whether the time has come at which its plan ends it."""
        return self.state is ReplicaState.RUNNING and now >= self.started_s + self.plan.exit_after_s

    def status(self, url: str) -> ReplicaStatus:
        """What a provider may say of it."""
        return ReplicaStatus(
            self.name,
            self.state,
            boot_token=self.boot_token,
            url=url if self.state is ReplicaState.RUNNING else None,
            exit_code=self.exit_code,
            reason=self.reason,
            node=self.node,
            labels=dict(self.labels),
            created_at=self.created_at,
        )


class Log:
    """The last megabyte of what was written, addressed by bytes since the beginning."""

    def __init__(self) -> None:
        self._start = 0
        self._data = b""

    @property
    def end(self) -> int:
        """Bytes written since the beginning."""
        return self._start + len(self._data)

    def append(self, text: str) -> None:
        """Write ``text``."""
        self._data += text.encode()
        surplus = len(self._data) - _LOG_BYTES
        if surplus > 0:
            self._start, self._data = self._start + surplus, self._data[surplus:]

    def read(self, offset: int) -> str:
        """What was written from ``offset`` on; a negative one counts from the end and begins with a whole line."""
        if offset >= 0:
            return self._data[max(0, offset - self._start) :].decode("utf-8", "ignore")
        data = self._data[offset:]
        whole = len(data) == len(self._data) or b"\n" not in data
        return (data if whole else data.partition(b"\n")[2]).decode("utf-8", "ignore")


class History:
    """What was true of each name when, so that a listing can lag. Times are seconds of the place's own clock."""

    #: Older states are forgotten; no lag is longer.
    HORIZON_S = 3600.0

    def __init__(self) -> None:
        self._states: dict[str, list[tuple[float, ReplicaStatus | None]]] = {}
        self._owners: dict[str, str] = {}

    def note(self, now: float, record: Record, status: ReplicaStatus | None) -> None:
        """From ``now`` on this is true of ``record``; None means that it is gone."""
        self._owners[record.name] = record.owner
        states = self._states.setdefault(record.name, [])
        states.append((now, status))
        while len(states) > 1 and states[1][0] < now - self.HORIZON_S:
            states.pop(0)

    def at(self, name: str, when: float) -> ReplicaStatus | None:
        """What was true of ``name``."""
        return next((status for since, status in reversed(self._states.get(name, ())) if since <= when), None)

    def owned_at(self, owner: str, when: float) -> list[ReplicaStatus]:
        """Everything of ``owner`` that was there."""
        names = (name for name, its_owner in self._owners.items() if its_owner == owner)
        return [status for name in names if (status := self.at(name, when)) is not None]
