"""What a Docker host has to offer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from docker.api import APIClient

from control_plane.errors import SlipwayError
from control_plane.providers.base import HardwareOffer
from control_plane.providers.docker_api import gpus
from control_plane.providers.docker_api.body import CPU_HARDWARE, MEMORY_LABEL, OWNER_LABEL
from control_plane.providers.docker_api.connection import Connection, is_podman
from control_plane.providers.docker_api.gpus import Holding
from control_plane.providers.docker_api.options import DockerOptions, Gpu
from control_plane.providers.local_host import hardware

NO_GPUS_IN_PODMAN = "Podman's Docker API drops requests for GPUs: run Docker for them"
_NO_TOOLKIT = "Docker has no runtime named nvidia: set up the NVIDIA Container Toolkit there"


@dataclass(frozen=True)
class _Host:
    """What Docker says about its host. ``held`` is memory that our replicas said they need."""

    cpus: int
    memory: int
    held: int
    name: str
    gpu_trouble: str | None
    holdings: tuple[Holding, ...]


def offers(connection: Connection, options: DockerOptions) -> list[HardwareOffer]:
    """The host's processors, then its GPUs by kind. While it does not answer they are listed as unavailable."""
    known = gpus.devices(options)
    try:
        with connection.client(5.0) as client:
            host = _ask(client, known)
    except SlipwayError as error:
        away = _Host(0, 0, 0, "Docker host", error.detail, ())
        return [
            replace(offer, available=False, why_unavailable=error.detail) for offer in _offers(options, known, away)
        ]
    return _offers(options, known, host)


def by_kind(known: Sequence[Gpu]) -> dict[str, list[Gpu]]:
    """Devices by the id of their offer."""
    kinds: dict[str, list[Gpu]] = {}
    for gpu in known:
        kinds.setdefault(gpus.hardware_id(gpu), []).append(gpu)
    return kinds


def _ask(client: APIClient, known: Sequence[Gpu]) -> _Host:
    info: dict[str, Any] = client.info()
    replicas = client.containers(filters={"label": [OWNER_LABEL]})
    held = sum(_number((replica.get("Labels") or {}).get(MEMORY_LABEL)) for replica in replicas)
    trouble = None
    if is_podman(client):
        trouble = NO_GPUS_IN_PODMAN
    elif "nvidia" not in (info.get("Runtimes") or {}):
        trouble = _NO_TOOLKIT
    holdings = tuple(gpus.holdings(client, known)) if known else ()
    return _Host(int(info["NCPU"]), int(info["MemTotal"]), held, str(info["Name"]), trouble, holdings)


def _offers(options: DockerOptions, known: Sequence[Gpu], host: _Host) -> list[HardwareOffer]:
    cpu = HardwareOffer(
        id=CPU_HARDWARE,
        provider="docker",
        name=f"{hardware.cpu_name()} (Docker)" if options.is_here else f"Processors of {host.name} (Docker)",
        accelerator="cpu",
        accelerator_count=0,
        memory_bytes=_cpu_memory(options, host),
        price_per_hour=options.price_per_hour,
        available=True,
        cpu_count=host.cpus,
        # Of another machine's processor nothing is known: the safe answer is the one that needs more memory.
        native_bfloat16=options.is_here and hardware.cpu_has_bfloat16(),
    )
    return [cpu, *(_gpu_offer(id_, kind, options, host) for id_, kind in by_kind(known).items())]


def _cpu_memory(options: DockerOptions, host: _Host) -> int:
    free = max(host.memory - host.held, 0)
    if options.is_here:
        free = min(free, hardware.memory_available()) if host.memory else hardware.memory_available()
    return min(free, options.memory_bytes) if options.memory_bytes else free


def _gpu_offer(id_: str, kind: Sequence[Gpu], options: DockerOptions, host: _Host) -> HardwareOffer:
    """A kind is available as long as one device has room: engines whose cache has a given size share one."""
    return HardwareOffer(
        id=id_,
        provider="docker",
        name=f"{kind[0].name} (Docker)",
        accelerator=kind[0].name,
        accelerator_count=len(kind),
        memory_bytes=min(gpu.memory_bytes for gpu in kind),
        price_per_hour=options.price_per_hour,
        available=host.gpu_trouble is None,
        cpu_count=host.cpus,
        why_unavailable=host.gpu_trouble,
        free_count=gpus.free_count(kind, host.holdings),
    )


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0
