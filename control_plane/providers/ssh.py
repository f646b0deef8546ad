"""The ssh provider: replicas are processes of machines that are reached by SSH.

A small supervisor of ours, copied over on the first contact (``ssh_host/supervisor``), starts and watches them; they go
on without the connection and without the control plane. They listen on the host's address and demand their key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from control_plane.downloads.cache_layout import ModelCache
from control_plane.errors import Invalid, SlipwayError
from control_plane.keys import installation_id
from control_plane.providers.base import (
    FetchSpec,
    HardwareOffer,
    ProviderError,
    ProviderUnavailable,
    ReplicaSpec,
    ReplicaState,
    ReplicaStatus,
)
from control_plane.providers.engine_flags import engine_flags
from control_plane.providers.ssh_host.connection import HostConnection
from control_plane.providers.ssh_host.hardware import HostFacts, cpu_hardware, offers_of
from control_plane.providers.ssh_host.identity import HostRefused
from control_plane.providers.ssh_host.loop import LoopThread
from control_plane.providers.ssh_host.settings import SshHost
from control_plane.settings import Settings

T = TypeVar("T")

_LOG_PIECE_BYTES = 1 << 16


class _Answer(NamedTuple):
    """What a host answered, or the error that kept it from answering."""

    host: SshHost
    answer: Any


class _Target(NamedTuple):
    """What a hardware id means: a host, and one of its kinds of devices or none."""

    connection: HostConnection
    device: str | None


class SshProvider:
    """Asks every host at once; a host that is down leaves what the others say as it is.

    :param owner: the tag of this installation.
    """

    name = "ssh"
    exact = False  # a host can be cut off

    def __init__(self, hosts: Sequence[SshHost], owner: str, *, timeout_s: float = 15.0) -> None:
        self._owner = owner
        self._loop = LoopThread("ssh-provider")
        self._connections = {host.name: HostConnection(host, timeout_s=timeout_s) for host in hosts}
        #: What a host said the last time, for the listing of one that is down.
        self._facts: dict[str, HostFacts] = {}
        #: Where a name was seen the last time: that host is asked alone, and the others when it does not know it.
        self._seen: dict[str, str] = {}

    @classmethod
    def from_settings(cls, settings: Settings) -> SshProvider:
        """The provider of the hosts that ``settings`` name.

        :raises Invalid: none, or two of one name.
        """
        names = [host.name for host in settings.ssh_hosts]
        if not names or len(set(names)) != len(names):
            wrong = "is empty" if not names else "names a host twice"
            raise Invalid(f"ssh_hosts {wrong}", "Add one [[ssh_hosts]] table per machine to slipway.toml.")
        return cls(settings.ssh_hosts, installation_id(settings))

    # Offers.

    def offers(self) -> list[HardwareOffer]:
        """Each host's processors, then each kind of device it has."""
        connections = list(self._connections.values())
        found = self._loop.run(_gather([self._look(connection) for connection in connections]))
        offers = []
        for connection, answer in zip(connections, found, strict=True):
            host = connection.host
            if isinstance(answer, HostFacts):
                self._facts[host.name] = answer
            away = answer.detail if isinstance(answer, SlipwayError) else None
            offers += offers_of(host, self._facts.get(host.name), away)
        return offers

    async def _look(self, connection: HostConnection) -> HostFacts:
        host = connection.host
        programs = [host.engine, host.agent_program]
        return HostFacts.model_validate(await connection.call("facts", programs=programs))

    # Replicas.

    def create(self, spec: ReplicaSpec) -> ReplicaStatus:
        """Start a replica, or return the one that already has this name."""
        target = self._target(spec.hardware_id)
        if target.device is None and spec.accelerator_count:
            raise ProviderError(f"{spec.hardware_id} has no devices", "Choose hardware with devices.")
        return self._loop.run(self._create(target, spec, engine_flags(spec, device="cuda" if target.device else "cpu")))

    async def _create(self, target: _Target, spec: ReplicaSpec, flags: list[str]) -> ReplicaStatus:
        connection = target.connection
        await connection.connect()
        folder = await self._weights(connection, spec)
        return await self._start(
            connection,
            name=spec.name,
            boot_token=spec.boot_token,
            owner=spec.owner,
            labels=dict(spec.labels),
            secret=spec.api_key,
            argv=[connection.host.engine, folder, *flags],
            needs=folder,
            environment={"HF_HUB_OFFLINE": "1"},  # an engine has no reason to talk to the hub
            address=connection.host.listen_address,
            device=target.device,
            device_count=max(1, spec.accelerator_count) if target.device else 0,
            limits={"cpus": spec.limits.cpus, "memory_bytes": spec.limits.memory_bytes},
        )

    async def _weights(self, connection: HostConnection, spec: ReplicaSpec) -> str:
        """The folder over there: where an agent put it, or a copy of what comes with Slipway."""
        weights = spec.weights
        if weights.path is not None:
            if not weights.path.is_dir():
                raise ProviderError(f"the model folder {weights.path} is not there", "Launch again.")
            return await connection.copy_folder(weights.path)
        if weights.commit_sha is None:
            raise ProviderError(f"{weights.model} names no commit and no folder", "Launch again.")
        return str(ModelCache(Path(connection.hub_cache), weights.model).snapshot(weights.commit_sha))

    async def _start(self, connection: HostConnection, *, secret: str, **spec: Any) -> ReplicaStatus:
        status = await connection.call("create", spec=spec, secret=secret)
        return _status(connection.host, status, str(spec["name"]))

    def find(self, name: str) -> ReplicaStatus:
        """The replica of this name; ``ABSENT`` only when every host has said so."""
        found = self._ask_where_it_is("find", name, owner=self._owner)
        return _status(*found, name) if found else ReplicaStatus(name, ReplicaState.ABSENT)

    def list_owned(self) -> list[ReplicaStatus]:
        """Everything with our tag; nothing at all while a host cannot be asked, for half a list misleads."""
        answers = self._ask_all("list", owner=self._owner)
        _raise_first(answers)
        return [_status(host, entry, entry["name"]) for host, found in answers for entry in found]

    def delete(self, name: str, *, boot_token: str | None, grace_s: float) -> None:
        """Begin to end a replica and return."""
        self._ask_where_it_is("delete", name, owner=self._owner, boot_token=boot_token, grace_s=grace_s)

    # Logs.

    def logs(self, name: str, *, tail_bytes: int) -> str:
        """The last ``tail_bytes`` of the replica's log; those of some deleted replicas are kept."""
        return self._tail(name, tail_bytes)[1]

    def follow_logs(self, name: str, *, offset: int) -> Iterator[tuple[int, str]]:
        """New log text from ``offset`` on, or from that far before the end where it is negative."""
        if offset < 0:
            offset, text = self._tail(name, -offset)
            yield offset, text
        while (piece := self._log(name, offset=offset))["text"]:
            offset = piece["next_offset"]
            yield offset, piece["text"]

    def _tail(self, name: str, size: int) -> tuple[int, str]:
        """The offset of the end, and the text before it, beginning with a whole line."""
        piece = self._log(name, tail=size)
        offset, start, text = piece["next_offset"], piece["start"], piece["text"]
        while (piece := self._log(name, offset=offset))["text"]:
            offset, text = piece["next_offset"], text + piece["text"]
        if start > 0 and "\n" in text:
            text = text.partition("\n")[2]
        return offset, text

    def _log(self, name: str, *, offset: int = 0, tail: int | None = None) -> dict[str, Any]:
        found = self._ask_where_it_is("log", name, offset=offset, tail=tail, limit=_LOG_PIECE_BYTES)
        return found.answer if found else {"start": 0, "next_offset": offset, "text": ""}

    # Weights.

    def location(self, hardware_id: str) -> str:
        """The Hugging Face cache of the host."""
        host = self._target(hardware_id).connection.host
        return f"ssh:{host.name}:{host.hub_cache or ''}"

    def fetch(self, spec: FetchSpec) -> ReplicaStatus:
        """Start the agent, or return the one that already has this name."""
        return self._loop.run(self._fetch(self._target(spec.hardware_id).connection, spec))

    async def _fetch(self, connection: HostConnection, spec: FetchSpec) -> ReplicaStatus:
        await connection.connect()
        host = connection.host
        certificates = {"SLIPWAY_AGENT_CA_FILE": host.agent_ca_file} if host.agent_ca_file else {}
        return await self._start(
            connection,
            name=spec.name,
            boot_token=spec.boot_token,
            owner=spec.owner,
            labels=dict(spec.labels),
            secret=spec.token,
            argv=[host.agent_program, "--job-url", spec.job_url, "--cache", connection.hub_cache],
            needs=None,
            environment=certificates,
            address=None,
            device=None,
            device_count=0,
            limits={},
        )

    # Hosts.

    def _target(self, hardware_id: str) -> _Target:
        """The host whose hardware this is; of two that may be meant, the one with the longer name."""
        for name in sorted(self._connections, key=len, reverse=True):
            prefix = f"ssh-{name}-"
            if hardware_id.startswith(prefix) and len(hardware_id) > len(prefix):
                connection = self._connections[name]
                device = hardware_id.removeprefix(prefix)
                return _Target(connection, None if hardware_id == cpu_hardware(connection.host) else device)
        raise ProviderError(f"there is no hardware {hardware_id!r}", "Choose one that GET /hardware lists.")

    def _ask_where_it_is(self, operation: str, name: str, **arguments: Any) -> _Answer | None:
        """The answer of the host that has ``name``; None when every host has said that it has not.

        :raises ProviderUnavailable: nobody has it of those who could be asked.
        """
        last = self._connections.get(self._seen.get(name, ""))
        for connections in ([last] if last else [], list(self._connections.values())):
            answers = self._ask(connections, operation, name=name, **arguments)
            for answer in answers:
                if answer.answer and not isinstance(answer.answer, SlipwayError):
                    self._seen[name] = answer.host.name
                    return answer
            _raise_first(answers)
        self._seen.pop(name, None)
        return None

    def _ask_all(self, operation: str, **arguments: Any) -> list[_Answer]:
        return self._ask(list(self._connections.values()), operation, **arguments)

    def _ask(self, connections: list[HostConnection], operation: str, **arguments: Any) -> list[_Answer]:
        calls = [connection.call(operation, **arguments) for connection in connections]
        answers = self._loop.run(_gather(calls))
        return [_Answer(connection.host, answer) for connection, answer in zip(connections, answers, strict=True)]


async def _gather(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T | SlipwayError]:
    """All results; what a host could not answer is its error."""
    results: list[T | SlipwayError] = []
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, SlipwayError):
            raise result
        results.append(result)
    return results


def _raise_first(answers: Sequence[_Answer]) -> None:
    """What keeps us from knowing. A host that is refused now may be let in again: it is not a final answer."""
    for _, answer in answers:
        if isinstance(answer, HostRefused):
            raise ProviderUnavailable(answer.detail, answer.next_step) from answer
        if isinstance(answer, SlipwayError):
            raise answer


def _status(host: SshHost, value: dict[str, Any], name: str) -> ReplicaStatus:
    """What the supervisor says, in the words of all providers."""
    state = ReplicaState(value["state"])
    if state is ReplicaState.ABSENT:
        return ReplicaStatus(name, state)
    address = f"[{host.listen_address}]" if ":" in host.listen_address else host.listen_address
    port = value.get("port")
    return ReplicaStatus(
        name=name,
        state=state,
        boot_token=value["boot_token"],
        url=f"http://{address}:{port}" if state is ReplicaState.RUNNING and port else None,
        exit_code=value.get("exit_code"),
        reason=value.get("reason"),
        node=host.name,
        labels=value["labels"],
        created_at=datetime.fromtimestamp(value["created_at"], UTC),
    )
