"""A provider in memory that fails on demand: lost replies, refusals, listings that lag, deletes that take time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from control_plane.instances.engine_probe import Probe
from control_plane.providers.base import (
    HardwareOffer,
    ProviderUnavailable,
    ReplicaSpec,
    ReplicaState,
    ReplicaStatus,
)

OFFER = HardwareOffer("fake-cpu", "fake", "A machine", "cpu", 0, 64 << 30, 3.6, available=True, cpu_count=8)


class FakeProvider:
    """What the Provider protocol promises, and the ways in which real ones break it."""

    name = "fake"

    def __init__(self) -> None:
        self.exact = False
        #: Why the next replicas wait instead of running; None while there is room.
        self.full: str | None = None
        self.offered = [OFFER]
        self.replicas: dict[str, ReplicaStatus] = {}
        self.specs: list[ReplicaSpec] = []
        self.deleted: list[str] = []
        self.log: dict[str, str] = defaultdict(str)
        #: Raised by the next call of the operation, before it does anything …
        self.fail_before: dict[str, list[BaseException]] = defaultdict(list)
        #: … or after it has done all: the reply is lost.
        self.fail_after: dict[str, list[BaseException]] = defaultdict(list)
        self.engines_answer = Probe.READY
        #: … of single ones, by URL.
        self.answers: dict[str, Probe] = {}
        self.runs = 0
        self.deletes_take_effect = True

    def offers(self) -> list[HardwareOffer]:
        return self.offered

    def create(self, spec: ReplicaSpec) -> ReplicaStatus:
        self._fail(self.fail_before["create"])
        present = self.replicas.get(spec.name)
        if present is None or (present.state is ReplicaState.EXITED and present.boot_token != spec.boot_token):
            self.specs.append(spec)
            self.replicas[spec.name] = ReplicaStatus(
                spec.name, ReplicaState.PENDING, spec.boot_token, reason=self.full, labels=spec.labels
            )
            if self.full is None:
                self.run(spec.name)
        self._fail(self.fail_after["create"])
        return self.replicas[spec.name]

    def find(self, name: str) -> ReplicaStatus:
        self._fail(self.fail_before["find"])
        return self.replicas.get(name, ReplicaStatus(name, ReplicaState.ABSENT))

    def list_owned(self) -> list[ReplicaStatus]:
        return list(self.replicas.values())

    def delete(self, name: str, *, boot_token: str | None, grace_s: float) -> None:
        assert grace_s > 0, "requests in flight are given time"
        self._fail(self.fail_before["delete"])
        present = self.replicas.get(name)
        meant = present is not None and boot_token in {None, present.boot_token}
        if self.deletes_take_effect and meant:
            del self.replicas[name]
            self.deleted.append(name)
        self._fail(self.fail_after["delete"])

    def logs(self, name: str, *, tail_bytes: int) -> str:
        return self.log[name][-tail_bytes:]

    def follow_logs(self, name: str, *, offset: int) -> Iterator[tuple[int, str]]:
        text = self.log[name]
        start = max(0, len(text) + offset) if offset < 0 else offset
        if text[start:]:
            yield len(text), text[start:]

    # What a test does to it.

    def exit(self, name: str, code: int, last_words: str = "") -> None:
        """The engine's process ends."""
        self.replicas[name] = replace(self.replicas[name], state=ReplicaState.EXITED, exit_code=code, url=None)
        self.log[name] += last_words

    def run(self, name: str, node: str = "node-1") -> None:
        """What waited runs, at an address of its own."""
        self.runs += 1
        url = f"http://engine.invalid/{self.runs}"
        self.replicas[name] = replace(
            self.replicas[name], state=ReplicaState.RUNNING, url=url, node=node, reason=None, exit_code=None
        )

    def queue(self, name: str, reason: str) -> None:
        """A replica waits for hardware again."""
        self.replicas[name] = replace(self.replicas[name], state=ReplicaState.PENDING, url=None, reason=reason)

    def take_away(self, name: str, reason: str) -> None:
        """A replica is preempted, or its node dies."""
        self.replicas[name] = replace(self.replicas[name], state=ReplicaState.LOST, url=None, reason=reason)

    def lose_everything(self) -> None:
        """The host dies, and its engines with it."""
        self.replicas.clear()

    def unavailable(self, operation: str, *, times: int = 1) -> None:
        """The next calls of ``operation`` get no answer."""
        self.fail_before[operation] += [ProviderUnavailable("the fake does not answer", "Wait.")] * times

    def probe(self, url: str, boot_token: str) -> Probe:
        """What an engine answers; nothing but a running one does."""
        assert boot_token
        alive = any(status.url == url and status.state is ReplicaState.RUNNING for status in self.replicas.values())
        return self.answers.get(url, self.engines_answer) if alive else Probe.SILENT

    @staticmethod
    def _fail(errors: list[BaseException]) -> None:
        if errors:
            raise errors.pop(0)
