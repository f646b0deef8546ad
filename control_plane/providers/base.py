"""What a provider is: a place where replicas run.

Providers are called with no database session held. Each call may fail half-way; the caller looks up the outcome by
``name`` (deterministic, committed before the call) instead of repeating blindly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from control_plane.errors import SlipwayError, Unavailable


@dataclass(frozen=True)
class HardwareOffer:
    """Something an instance can run on. Memory in bytes, price in US dollars per hour; ``id`` is unique and stable."""

    id: str
    provider: str
    name: str
    accelerator: str
    accelerator_count: int
    memory_bytes: int
    price_per_hour: float
    available: bool
    cpu_count: int = 0
    #: Whether an engine here computes in bfloat16 what is stored in it; elsewhere the weights double when loaded.
    native_bfloat16: bool = True
    why_unavailable: str | None = None


@dataclass(frozen=True)
class ReplicaSpec:
    """What to start. ``name`` is deterministic: creating it twice must not give two.

    ``model_path`` is a local folder with the weights; ``engine_options`` are flags of ``slipway-serve`` without dashes.
    ``api_key`` is what callers must present; ``boot_token`` tells this boot from an earlier one at the same address.
    """

    name: str
    owner: str
    model_path: Path
    served_model_name: str
    hardware_id: str
    api_key: str = field(repr=False)
    boot_token: str
    engine_options: dict[str, str] = field(default_factory=dict)


class ReplicaState(StrEnum):
    """What a provider can know of a replica from outside."""

    RUNNING = "running"
    EXITED = "exited"
    ABSENT = "absent"


@dataclass(frozen=True)
class ReplicaStatus:
    """A provider's answer about one replica. ``url`` is where its HTTP server listens, once known."""

    name: str
    state: ReplicaState
    boot_token: str | None = None
    url: str | None = None
    exit_code: int | None = None
    reason: str | None = None


class ProviderError(SlipwayError):
    """The provider refused, finally: repeating the same call will not help."""

    status, code = 502, "provider_error"


class ProviderUnavailable(Unavailable):
    """The provider could not be asked; the outcome is unknown. Look it up before doing anything."""

    code = "provider_unavailable"


class Provider(Protocol):
    """The narrow protocol that every provider implements."""

    name: str

    def offers(self) -> list[HardwareOffer]:
        """What can be had here, now. Never raises: what cannot be asked is listed as unavailable, with the reason."""
        ...

    def create(self, spec: ReplicaSpec) -> ReplicaStatus:
        """Start a replica, or return the one that already has this name."""
        ...

    def find(self, name: str) -> ReplicaStatus:
        """The replica of this name; ``ABSENT`` if there is none."""
        ...

    def list_owned(self) -> list[ReplicaStatus]:
        """Every replica here that carries our owner tag, whether our database knows it or not."""
        ...

    def delete(self, name: str, *, grace_s: float) -> None:
        """Let a replica drain, end it after ``grace_s`` seconds at the latest. Deleting what is absent is fine."""
        ...

    def logs(self, name: str, *, tail_bytes: int) -> str:
        """The last ``tail_bytes`` of the replica's log; kept after its death."""
        ...

    def follow_logs(self, name: str, *, offset: int) -> Iterator[tuple[int, str]]:
        """New log text from ``offset`` (bytes) on: pairs of the next offset and the text; ends at the present end.

        A negative offset counts from that end, and begins with a whole line.
        """
        ...
