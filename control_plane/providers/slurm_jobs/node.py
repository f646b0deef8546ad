"""Nodes, their GPUs, and the hardware offers that follow from them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from control_plane.providers.base import HardwareOffer
from control_plane.sizing.machines import MACHINES

CPU_HARDWARE = "slurm-cpu"
GPU_HARDWARE = "slurm-gpu"
_MIB, _GIB = 1 << 20, 1 << 30
#: One entry of a node's ``gres``: ``gpu:h200:8(S:0-1)``, ``gpu:4``; of ``gres_used``: ``gpu:h200:2(IDX:0-1)``.
_GPU = re.compile(r"gpu(?::(?P<type>[^:,()]+))?:(?P<count>\d+)(?:\([^)]*\))?(?:,|$)")
#: ``80gb`` in a type such as ``nvidia_a100-sxm4-80gb``, as Slurm's own detection names devices.
_SIZE = re.compile(r"(\d+)g(?:b)?(?![a-z])")
_USABLE = frozenset({"idle", "mixed", "allocated"})
_UNUSABLE_FLAGS = frozenset({"DRAIN", "FAIL", "MAINTENANCE", "NOT_RESPONDING", "REBOOT", "POWERED_DOWN", "RESERVED"})


class Gpus(NamedTuple):
    """Devices of one type on one node."""

    total: int
    used: int

    @property
    def free(self) -> int:
        """Devices that no job has."""
        return max(0, self.total - self.used)


@dataclass(frozen=True)
class Partition:
    """A queue."""

    name: str
    is_default: bool
    up: bool

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Partition:
        """From slurmrestd's record."""
        return cls(str(value["name"]), "default" in (value.get("flags") or []), value.get("state") == "UP")


@dataclass(frozen=True)
class Node:
    """The part of a node's record that matters here; memory in bytes.

    :ivar address: ``NodeAddr``: where the cluster, and so this machine, reaches it.
    :ivar gpus: by type; the type is empty where the cluster gives none.
    """

    name: str
    address: str
    partitions: frozenset[str]
    usable: bool
    state: str
    cpus: int
    free_cpus: int
    memory_bytes: int
    free_memory_bytes: int
    gpus: Mapping[str, Gpus]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Node:
        """From slurmrestd's record."""
        state, flags = str(value.get("state") or "unknown"), set(value.get("state_flags") or [])
        total, used = _count(value.get("gres")), _count(value.get("gres_used"))
        cpus, memory = int(value.get("cpus") or 0), int(value.get("real_memory") or 0) * _MIB
        return cls(
            name=str(value["name"]),
            address=str(value.get("address") or value["name"]),
            partitions=frozenset(value.get("partitions") or []),
            usable=state in _USABLE and not flags & _UNUSABLE_FLAGS,
            state=" ".join([state, *sorted(flag.lower() for flag in flags)]),
            cpus=cpus,
            free_cpus=max(0, cpus - int(value.get("alloc_cpus") or 0)),
            memory_bytes=memory,
            free_memory_bytes=max(0, memory - int(value.get("alloc_memory") or 0) * _MIB),
            gpus={kind: Gpus(count, used.get(kind, 0)) for kind, count in total.items()},
        )


def _count(gres: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for match in _GPU.finditer(str(gres or "")):
        kind = match["type"] or ""
        counts[kind] = counts.get(kind, 0) + int(match["count"])
    return counts


class Tariff(NamedTuple):
    """What Slurm does not know, by type of GPU or ``cpu``: US dollars per hour, and GiB of memory of one device."""

    price_per_hour: Mapping[str, float]
    gpu_memory_gib: Mapping[str, float]

    def gpu_memory_bytes(self, kind: str) -> int:
        """Memory that an engine finds free of one device; 0 where nobody knows.

        As configured; else as the type says (``a100-80gb``, less 2 % for the driver); else as the well-known device of
        that name has.
        """
        if kind in self.gpu_memory_gib:
            return int(self.gpu_memory_gib[kind] * _GIB)
        if size := _SIZE.search(kind.lower()):
            return int(int(size[1]) * _GIB * 0.98)
        for machine in MACHINES:
            if machine.accelerator.split()[-1].lower() in re.split(r"[^a-z0-9]+", kind.lower()):
                return machine.memory_bytes
        return 0


def offers(nodes: Iterable[Node], partition: Partition, tariff: Tariff) -> list[HardwareOffer]:
    """The partition's processors, then its GPUs by type."""
    members = [node for node in nodes if partition.name in node.partitions]
    kinds = sorted({kind for node in members for kind in node.gpus})
    return [_cpu_offer(members, partition, tariff), *(_gpu_offer(members, partition, tariff, kind) for kind in kinds)]


def _cpu_offer(members: list[Node], partition: Partition, tariff: Tariff) -> HardwareOffer:
    usable = [node for node in members if node.usable and node.free_cpus and node.free_memory_bytes]
    largest = max((node.memory_bytes for node in members), default=0)
    busy = None if usable and partition.up else _why_not(members, partition, "no node has a processor free")
    return HardwareOffer(
        id=CPU_HARDWARE,
        provider="slurm",
        name=f"A processor of partition {partition.name}",
        accelerator="cpu",
        accelerator_count=0,
        # Of the node with most; with none free, what will be: a plan must not change because the cluster is busy.
        memory_bytes=max((node.free_memory_bytes for node in usable), default=largest) or 1,
        price_per_hour=tariff.price_per_hour.get("cpu", 0.0),
        available=busy is None,
        cpu_count=max((node.cpus for node in members), default=0),
        native_bfloat16=False,  # Slurm does not tell; the engine itself finds out
        why_unavailable=busy,
    )


def _gpu_offer(members: list[Node], partition: Partition, tariff: Tariff, kind: str) -> HardwareOffer:
    owners = [node for node in members if kind in node.gpus]
    free = sum(node.gpus[kind].free for node in owners if node.usable)
    memory, label = tariff.gpu_memory_bytes(kind), kind.upper() or "GPU"
    busy = None if free and partition.up else _why_not(owners, partition, "every device is in use: a replica waits")
    if not memory:
        busy = (
            f"Slurm does not tell how much memory a {label} has: set SLIPWAY_SLURM_GPU_MEMORY_GIB='{{\"{kind}\": 80}}'"
        )
    return HardwareOffer(
        id=f"{GPU_HARDWARE}-{kind}" if kind else GPU_HARDWARE,
        provider="slurm",
        name=f"{label} of partition {partition.name}",
        accelerator=label,
        accelerator_count=max(node.gpus[kind].total for node in owners),
        memory_bytes=memory or 1,
        price_per_hour=tariff.price_per_hour.get(kind or "gpu", 0.0),
        available=busy is None,
        cpu_count=max(node.cpus for node in owners),
        why_unavailable=busy,
        free_count=free,
    )


def _why_not(members: list[Node], partition: Partition, busy: str) -> str:
    if not partition.up:
        return f"partition {partition.name} takes no jobs now"
    if members and not any(node.usable for node in members):
        return f"every node is out of service ({members[0].name}: {members[0].state})"
    return busy
