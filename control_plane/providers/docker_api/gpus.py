"""Which devices a Docker host has, and which of them a replica gets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from docker.api import APIClient
from docker.errors import APIError

from control_plane.ids import slugify
from control_plane.providers.base import ReplicaSpec
from control_plane.providers.docker_api.body import DEVICES_LABEL, MEMORY_LABEL
from control_plane.providers.docker_api.connection import is_gone
from control_plane.providers.docker_api.options import DockerOptions, Gpu
from control_plane.providers.docker_api.state import Container
from control_plane.providers.local_host import hardware

_GIB = 1 << 30


@dataclass(frozen=True)
class Holding:
    """A container that may use devices. ``memory_bytes`` is what it needs of each; 0 means all of it."""

    container: str
    created_at: datetime
    devices: frozenset[str]
    memory_bytes: int


@dataclass(frozen=True)
class NoRoom:
    """Nothing is free now."""

    reason: str


def devices(options: DockerOptions) -> tuple[Gpu, ...]:
    """The devices that the settings name; else those of this machine, if Docker runs here."""
    if options.gpus or not options.is_here:
        return options.gpus
    return tuple(Gpu(str(gpu.index), gpu.name, gpu.memory_total) for gpu in hardware.gpus())


def hardware_id(gpu: Gpu) -> str:
    """The id of the offer that a device belongs to: one for all of a kind."""
    return f"docker-{slugify(gpu.name)}"


def holdings(client: APIClient, known: Iterable[Gpu]) -> list[Holding]:
    """What every container there holds, of whichever installation, and foreign ones as far as Docker tells."""
    every = frozenset(gpu.id for gpu in known)
    found = []
    for summary in client.containers(all=True):
        try:
            container = Container(client.inspect_container(summary["Id"]))
        except APIError as error:
            if not is_gone(error):
                raise
            continue
        held = _devices_of(container, every) if container.runs or not container.started else frozenset()
        if held:
            memory = container.labels.get(MEMORY_LABEL, "0")
            memory_bytes = int(memory) if memory.isdigit() else 0
            found.append(Holding(container.id, container.created_at, held, memory_bytes))
    return found


def _devices_of(container: Container, every: frozenset[str]) -> frozenset[str]:
    """Docker gives the first so many where a container asked for a number, and all for -1."""
    if ours := container.labels.get(DEVICES_LABEL):
        return frozenset(ours.split(","))
    requests: list[dict[str, Any]] = container.raw["HostConfig"].get("DeviceRequests") or []
    held: set[str] = set()
    for request in requests:
        if not any("gpu" in names for names in request.get("Capabilities") or []):
            continue
        count = int(request.get("Count") or 0)
        held |= set(request.get("DeviceIDs") or ()) | set(sorted(every)[: len(every) if count < 0 else count])
    return frozenset(held)


def choose(spec: ReplicaSpec, kind: Sequence[Gpu], held: Sequence[Holding]) -> tuple[str, ...] | NoRoom:
    """Devices of ``kind`` for ``spec``: where one is shared, the fullest that has room; else empty ones first.

    A device is shared by replicas that said what they need of it, as long as it is enough for all.
    """
    load = {gpu.id: _load(gpu, held) for gpu in kind}
    free = [gpu for gpu in kind if _fits(spec.memory_bytes, gpu, held)]
    if len(free) < spec.accelerator_count:
        used = sum(bool(_on(gpu, held)) for gpu in kind)
        need = f"{spec.accelerator_count} with {spec.memory_bytes / _GIB:.1f} GiB free"
        return NoRoom(f"{used} of {len(kind)} × {kind[0].name} are used by containers; {need} are needed")
    sign = -1 if spec.accelerator_count == 1 else 1
    free.sort(key=lambda gpu: (sign * load[gpu.id], _natural(gpu.id)))
    return tuple(gpu.id for gpu in free[: spec.accelerator_count])


def overtaken(me: str, kind: Sequence[Gpu], held: Sequence[Holding]) -> bool:
    """Whether an earlier container leaves no room for ``me``: two workers may choose the same device at once.

    Each looks again after it has created its container, so at least the later one sees the other; all agree on who
    came first.
    """
    order = sorted(held, key=lambda holding: (holding.created_at, holding.container))
    before = order[: next((i for i, holding in enumerate(order) if holding.container == me), 0)]
    mine = [holding for holding in order if holding.container == me]
    return any(
        not _fits(holding.memory_bytes, gpu, before) for holding in mine for gpu in kind if gpu.id in holding.devices
    )


def free_count(kind: Sequence[Gpu], held: Sequence[Holding]) -> int:
    """Devices that no container uses."""
    return sum(not _on(gpu, held) for gpu in kind)


def _on(gpu: Gpu, held: Iterable[Holding]) -> list[Holding]:
    return [holding for holding in held if gpu.id in holding.devices]


def _load(gpu: Gpu, held: Iterable[Holding]) -> int:
    return sum(holding.memory_bytes or gpu.memory_bytes for holding in _on(gpu, held))


def _fits(need: int, gpu: Gpu, held: Iterable[Holding]) -> bool:
    there = _on(gpu, held)
    return not there or (need > 0 and _load(gpu, there) + need <= gpu.memory_bytes)


def _natural(text: str) -> tuple[int, str]:
    digits = re.match(r"\d+", text)
    return (int(digits[0]) if digits else 0), text
