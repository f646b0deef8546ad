"""What a provider is: a place where replicas run.

Providers are called with no database session held, from several threads and processes at once. Each call may fail
half-way; the caller looks up the outcome by ``name`` (deterministic, committed before the call) instead of repeating
blindly. Everything that a provider creates carries our owner tag, so that what no row knows can be found.

``docs/adding-a-provider.md`` shows how to write one; ``tests/control_plane/providers/contract.py`` is what it must
pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

from control_plane.errors import SlipwayError, Unavailable


@dataclass(frozen=True)
class HardwareOffer:
    """A kind of hardware that a replica can run on; ``id`` is unique over all providers and stable.

    :ivar accelerator: the device's name, or ``cpu``.
    :ivar accelerator_count: the most devices that one replica can have; 0 for processors.
    :ivar memory_bytes: what an engine finds free, of one device, or of the machine's memory for processors.
    :ivar price_per_hour: US dollars, of one device, or of the machine for processors.
    :ivar available: whether a replica that asks now would start now.
    :ivar free_count: devices that nobody uses now; None where the provider cannot tell.
    """

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
    free_count: int | None = None


@dataclass(frozen=True)
class Weights:
    """The weights that a replica serves: ``model`` at ``commit_sha``.

    :ivar commit_sha: None for a model that comes with Slipway.
    :ivar path: the folder on the storage that this machine and the replicas share; None where the provider's storage is
        its own, and then an agent has put them into the Hugging Face cache there (:class:`WeightsFetcher`).
    """

    model: str
    commit_sha: str | None
    path: Path | None

    def bundled_in(self, folder: str) -> str | None:
        """Where an image has them that carries the models that come with Slipway in ``folder``; None for others."""
        return None if self.commit_sha else f"{folder}/{self.model.rpartition('/')[2]}/model"


@dataclass(frozen=True)
class Limits:
    """What a replica may use at most; None is the provider's own default."""

    cpus: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class ReplicaSpec:
    """What to start. ``name`` is deterministic: creating it twice must not give two.

    :ivar owner: the tag by which :meth:`Provider.list_owned` finds everything of this installation.
    :ivar labels: for people, and for the adoption of what no row knows: ``instance``, ``model``, ``ordinal`` …; not
        secret, no longer than 63 characters each.
    :ivar accelerator_count: devices of the offer ``hardware_id`` that this replica needs; 0 for processors.
    :ivar memory_bytes: what the plan needs of each device, or of the machine's memory; not a limit.
    :ivar api_key: what callers must present.
    :ivar boot_token: tells this boot from an earlier one of the same name; not secret.
    :ivar engine_options: flags of ``slipway-serve`` without dashes.
    """

    name: str
    owner: str
    weights: Weights
    served_model_name: str
    hardware_id: str
    api_key: str = field(repr=False)
    boot_token: str
    accelerator_count: int = 0
    memory_bytes: int = 0
    limits: Limits = Limits()
    labels: Mapping[str, str] = field(default_factory=dict)
    engine_options: Mapping[str, str] = field(default_factory=dict)


class ReplicaState(StrEnum):
    """What a provider can know of a replica from outside.

    ::

        create ─► pending ─► running ─► exited (its process ended by itself; ``exit_code``)
                     │          └─────► lost   (taken away: its node died, or it was preempted; ``reason``)
                     └────────────────► absent (deleted, or never created)

    ``pending`` was accepted and waits, for hardware or an image; ``reason`` says for what. ``lost`` is positive
    knowledge and no fault of the engine's; ``absent`` may be the answer of a listing that lags. ``exited`` and ``lost``
    stay, with their logs, until they are deleted.
    """

    PENDING = "pending"
    RUNNING = "running"
    EXITED = "exited"
    LOST = "lost"
    ABSENT = "absent"


#: States in which a replica may hold hardware.
HOLDING = frozenset({ReplicaState.PENDING, ReplicaState.RUNNING})


@dataclass(frozen=True)
class ReplicaStatus:
    """A provider's answer about one replica.

    :ivar url: where its HTTP server listens, as this machine reaches it; known while it runs.
    :ivar reason: why it is pending or lost, or what its end was, in the provider's words.
    :ivar node: the machine it runs on, where there are several.
    :ivar labels: what :attr:`ReplicaSpec.labels` said.
    """

    name: str
    state: ReplicaState
    boot_token: str | None = None
    url: str | None = None
    exit_code: int | None = None
    reason: str | None = None
    node: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    created_at: datetime | None = None


class ProviderError(SlipwayError):
    """The provider refused, finally: repeating the same call will not help."""

    status, code = 502, "provider_error"


class WeightsMissing(ProviderError):
    """The weights that an agent brought to the provider's storage are not there any more."""

    code = "weights_missing"


class ProviderUnavailable(Unavailable):
    """The provider could not be asked; the outcome is unknown. Look it up before doing anything."""

    code = "provider_unavailable"


class Provider(Protocol):
    """The narrow protocol that every provider implements.

    :ivar exact: whether "absent" is certain: no listing here lags, and no part of it can be cut off. Where it is not,
        absence is believed when it has been said twice.
    """

    name: str
    exact: bool

    def offers(self) -> list[HardwareOffer]:
        """What can be had here, now. Never raises: what cannot be asked is listed as unavailable, with the reason."""
        ...

    def create(self, spec: ReplicaSpec) -> ReplicaStatus:
        """Start a replica, or return the one that already has this name.

        :raises ProviderError: it cannot be started like this, and trying again would change nothing.
        :raises WeightsMissing: not before its weights have been fetched again (:class:`WeightsFetcher`).
        :raises ProviderUnavailable: the outcome is unknown.
        """
        ...

    def find(self, name: str) -> ReplicaStatus:
        """The replica of this name; ``ABSENT`` if there is none."""
        ...

    def list_owned(self) -> list[ReplicaStatus]:
        """Everything here that carries our owner tag, whether our database knows it or not."""
        ...

    def delete(self, name: str, *, boot_token: str | None, grace_s: float) -> None:
        """Begin to end a replica and return: it drains, is killed after ``grace_s`` seconds at the latest, and is then
        absent. Deleting what is absent, or is on its way out, is fine.

        :param boot_token: only this boot; another one that has the name by now goes on. An order can be late: whoever
            gave it may have stood still between looking and ordering. None: whichever has the name.
        """
        ...

    def logs(self, name: str, *, tail_bytes: int) -> str:
        """The last ``tail_bytes`` of the replica's log; kept after its death, until it is deleted at least."""
        ...

    def follow_logs(self, name: str, *, offset: int) -> Iterator[tuple[int, str]]:
        """New log text from ``offset`` (bytes) on: pairs of the next offset and the text; ends at the present end.

        A negative offset counts from that end, and begins with a whole line.
        """
        ...


@dataclass(frozen=True)
class FetchSpec:
    """An agent to start, which brings weights onto the provider's storage and ends.

    ``name`` is deterministic, as a replica's is; the agent is found, listed and deleted like one. All it is told is
    ``job_url`` and ``token``: there it learns what to fetch, and reports its progress (``control_plane/agent``).
    """

    name: str
    owner: str
    hardware_id: str
    job_url: str
    boot_token: str
    token: str = field(repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class WeightsFetcher(Protocol):
    """The capability of a provider whose replicas cannot read this machine's disk: weights are fetched over there."""

    def location(self, hardware_id: str) -> str:
        """Which storage the replicas of this hardware read; two of one location share what was fetched."""
        ...

    def fetch(self, spec: FetchSpec) -> ReplicaStatus:
        """Start the agent, or return the one that already has this name.

        :raises ProviderError: it cannot be started.
        :raises ProviderUnavailable: the outcome is unknown.
        """
        ...
