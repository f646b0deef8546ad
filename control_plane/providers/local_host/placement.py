"""Which of this machine's devices and processors a replica gets, beside those that are here already."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from control_plane.providers.base import ProviderError, ReplicaSpec
from control_plane.providers.local_host.hardware import Gpu

CPU_HARDWARE = "local-cpu"
GPU_HARDWARE_PREFIX = "local-gpu-"


@dataclass(frozen=True)
class Placement:
    """``visible_devices`` is a UUID of a GPU or empty; ``cpus`` are processors by number, none meaning all."""

    visible_devices: str = ""
    cpus: tuple[int, ...] = ()


@dataclass(frozen=True)
class NoRoom:
    """Nothing is free now; ``reason`` says what is in the way."""

    reason: str


def place(
    spec: ReplicaSpec, present: Sequence[tuple[ReplicaSpec, Placement]], gpus: Iterable[Gpu], cpus: Iterable[int]
) -> Placement | NoRoom:
    """Find room for ``spec``.

    :param present: the replicas that run here now.
    :param cpus: processors that this process may use.
    :raises ProviderError: there is no such hardware, or it can never be enough.
    """
    chosen = _cpus(spec, [placement for _, placement in present], sorted(cpus))
    if spec.hardware_id == CPU_HARDWARE:
        return Placement("", chosen)
    for gpu in gpus:
        if spec.hardware_id == f"{GPU_HARDWARE_PREFIX}{gpu.index}":
            if spec.accelerator_count > 1:
                raise ProviderError(f"{spec.hardware_id} is one device", "Choose hardware that has several.")
            there = [other for other, _ in present if other.hardware_id == spec.hardware_id]
            return _shared(spec, there, gpu) or Placement(gpu.uuid, chosen)
    detail = f"there is no hardware {spec.hardware_id!r} on this machine"
    raise ProviderError(detail, "Choose one that GET /hardware lists.")


def _shared(spec: ReplicaSpec, there: Sequence[ReplicaSpec], gpu: Gpu) -> NoRoom | None:
    """Several engines share a card when what they said they hold fits; driver figures lag while others still load."""
    held = sum(other.memory_bytes for other in there)
    if not there or held + spec.memory_bytes <= gpu.memory_total:
        return None
    gib = 1 << 30
    return NoRoom(
        f"GPU {gpu.index} has {gpu.memory_total / gib:.1f} GiB, of which {len(there)} replicas hold {held / gib:.1f}; "
        f"{spec.memory_bytes / gib:.1f} are needed"
    )


def _cpus(spec: ReplicaSpec, placements: Sequence[Placement], cpus: Sequence[int]) -> tuple[int, ...]:
    """As many processors as the limit allows, those first that the fewest limited replicas have."""
    if spec.limits.cpus is None:
        return ()
    wanted = math.ceil(spec.limits.cpus)
    if wanted >= len(cpus):
        return ()
    taken = Counter(number for placement in placements for number in placement.cpus)
    return tuple(sorted(sorted(cpus, key=lambda number: (taken[number], number))[:wanted]))
