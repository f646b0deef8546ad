"""A container, as Docker's "inspect" shows it, and what that says about a replica."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from control_plane.downloads.units import format_bytes
from control_plane.providers.base import ReplicaState, ReplicaStatus
from control_plane.providers.docker_api.body import BOOT_LABEL, OWNER_LABEL, PORT, SPEC_LABEL

#: Between "create" and "start" lie a few calls. What has not started for so long has lost its worker.
START_WITHIN = timedelta(seconds=60)

_RUNNING = frozenset({"running", "paused", "restarting", "stopping"})
_KILLED = 128
_SIGKILL = 9


@dataclass(frozen=True)
class Container:
    """One that "inspect" answered for."""

    raw: dict[str, Any]

    @property
    def id(self) -> str:
        """Docker's id, which no other container ever has."""
        return str(self.raw["Id"])

    @property
    def name(self) -> str:
        """Its name; Docker writes a slash before it."""
        return str(self.raw["Name"]).removeprefix("/")

    @property
    def labels(self) -> dict[str, str]:
        """All labels."""
        return dict(self.raw["Config"].get("Labels") or {})

    @property
    def owner(self) -> str | None:
        """Which installation made it; None for what is not Slipway's."""
        return self.labels.get(OWNER_LABEL)

    @property
    def boot_token(self) -> str | None:
        """Which boot of the replica it is."""
        return self.labels.get(BOOT_LABEL)

    @property
    def phase(self) -> str:
        """Docker's word: created, running, exited …; Podman's "configured" and "initialized" are "created"."""
        word = str(self.raw["State"]["Status"])
        return "created" if word in {"configured", "initialized"} else word

    @property
    def started(self) -> bool:
        """Whether it runs, or did."""
        return self.phase != "created"

    @property
    def runs(self) -> bool:
        """Whether its processes are there."""
        return self.phase in _RUNNING

    @property
    def created_at(self) -> datetime:
        """By Docker's clock."""
        return parse_time(self.raw["Created"])

    @property
    def exit_code(self) -> int:
        """Negative where a signal ended it, as Python has it; Docker adds 128, as shells do."""
        code = int(self.raw["State"]["ExitCode"])
        return _KILLED - code if _KILLED < code <= _KILLED + 64 else code

    def status(self, *, now: datetime | None = None) -> ReplicaStatus:
        """The replica.

        :param now: the time by Docker's clock, where that is known; without it nothing counts as forgotten.
        """
        state, reason = self._state(now)
        return ReplicaStatus(
            self.name,
            state,
            self.boot_token,
            self._url() if state is ReplicaState.RUNNING else None,
            self.exit_code if state is ReplicaState.EXITED else None,
            reason,
            labels={
                name.removeprefix(SPEC_LABEL): value
                for name, value in self.labels.items()
                if name.startswith(SPEC_LABEL)
            },
            created_at=self.created_at,
        )

    def _state(self, now: datetime | None) -> tuple[ReplicaState, str | None]:
        if self.runs:
            return ReplicaState.RUNNING, None
        if self.phase in {"exited", "stopped"}:
            return ReplicaState.EXITED, self._end()
        if self.phase != "created":
            return ReplicaState.LOST, f"Docker says that it is {self.phase}: somebody is removing it"
        if now is not None and now - self.created_at > START_WITHIN:
            return ReplicaState.LOST, "it was created and never started: its worker ended in between"
        return ReplicaState.PENDING, "its container is being started"

    def _end(self) -> str | None:
        """What is to be said about its end beside the exit code. Podman does not tell an end for want of memory."""
        limit = int(self.raw["HostConfig"].get("Memory") or 0)
        words = f"its limit of {format_bytes(limit)}" if limit else "the Docker host's memory"
        if self.raw["State"].get("OOMKilled"):
            return f"the engine ran out of memory: it reached {words}"
        if self.exit_code == -_SIGKILL:
            return f"the engine was killed (SIGKILL): if nobody did that, it reached {words}"
        return None

    def _url(self) -> str | None:
        for binding in self.raw["NetworkSettings"].get("Ports", {}).get(PORT) or []:
            host = str(binding["HostIp"])
            return f"http://[{host}]:{binding['HostPort']}" if ":" in host else f"http://{host}:{binding['HostPort']}"
        return None


def parse_time(text: str) -> datetime:
    """RFC 3339 with as many digits of a second as Docker writes, nine; Python reads six."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
