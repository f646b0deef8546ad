"""What a host has, and what of it is offered."""

from __future__ import annotations

from itertools import groupby

from pydantic import BaseModel

from control_plane.providers.base import HardwareOffer
from control_plane.providers.ssh_host.settings import SshHost


class HostGpu(BaseModel):
    """One device; memory in bytes. ``model`` is its name as part of an id."""

    uuid: str
    name: str
    model: str
    total: int
    free: int
    busy: bool


class HostFacts(BaseModel):
    """What the supervisor says of its machine; memory in bytes."""

    cpu_name: str
    cpu_count: int
    memory_bytes: int
    bfloat16: bool
    gpus: list[HostGpu]
    #: Whether a program is there, by the name under which it was asked for.
    programs: dict[str, bool]


def cpu_hardware(host: SshHost) -> str:
    """The id of a host's processors."""
    return f"ssh-{host.name}-cpu"


def offers_of(host: SshHost, facts: HostFacts | None, away: str | None) -> list[HardwareOffer]:
    """The processors, then each kind of device.

    :param facts: what the host said now, or the last time; None if it never did.
    :param away: why it cannot be asked now.
    """
    missing = [program for program, there in facts.programs.items() if not there] if facts else []
    why = away or (_install(host, missing) if missing else None)
    cpu = HardwareOffer(
        id=cpu_hardware(host),
        provider="ssh",
        name=f"{facts.cpu_name if facts else 'Processors'} ({host.name})",
        accelerator="cpu",
        accelerator_count=0,
        memory_bytes=facts.memory_bytes if facts else 0,
        price_per_hour=host.price_per_hour,
        available=why is None,
        cpu_count=facts.cpu_count if facts else 0,
        native_bfloat16=facts.bfloat16 if facts else True,
        why_unavailable=why,
    )
    gpus = sorted(facts.gpus, key=lambda gpu: gpu.model) if facts else []
    kinds = [list(kind) for _, kind in groupby(gpus, key=lambda gpu: gpu.model)]
    return [cpu, *(_device_offer(host, kind, why, facts.cpu_count if facts else 0) for kind in kinds)]


def _device_offer(host: SshHost, kind: list[HostGpu], why: str | None, cpu_count: int) -> HardwareOffer:
    free = [gpu for gpu in kind if not gpu.busy]
    # A plan is made for a device that nobody uses; a busy one will have about its whole memory again.
    memory = min(gpu.free for gpu in free) if free else min(gpu.total for gpu in kind)
    why = why or (None if free else f"all {len(kind)} are in use")
    return HardwareOffer(
        id=f"ssh-{host.name}-{kind[0].model}",
        provider="ssh",
        name=f"{len(kind)} × {kind[0].name} ({host.name})",
        accelerator=kind[0].name,
        accelerator_count=len(kind),
        memory_bytes=memory,
        price_per_hour=host.price_per_hour,
        available=why is None,
        cpu_count=cpu_count,
        why_unavailable=why,
        free_count=len(free),
    )


def _install(host: SshHost, missing: list[str]) -> str:
    return (
        f"{' and '.join(missing)} cannot be found on host {host.name}: install Slipway there, or name the path as "
        "engine in ssh_hosts"
    )
