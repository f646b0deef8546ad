"""What the imaginary place has, and who holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from control_plane.providers.base import HardwareOffer


@dataclass(frozen=True)
class Hardware:
    """A kind of hardware on some nodes.

    :ivar accelerator: the device's name, or ``cpu``.
    :ivar nodes: devices of each node by its name; for processors the replicas that it takes.
    :ivar memory_bytes: of one device, or of a node for processors.
    """

    id: str
    name: str
    accelerator: str
    nodes: Mapping[str, int]
    memory_bytes: int
    price_per_hour: float
    cpu_count: int = 8

    @property
    def per_replica_limit(self) -> int:
        """The most devices that one replica can have: it cannot span nodes."""
        return max(self.nodes.values(), default=0)

    def units(self, accelerator_count: int) -> int:
        """What a replica takes of ``nodes``."""
        return 1 if self.accelerator == "cpu" else max(1, accelerator_count)


#: A machine with processors and room for all.
CPU = Hardware("fake-cpu", "A machine", "cpu", {"node-1": 100_000}, 64 << 30, 3.6)
#: Two nodes with eight devices each.
GPU = Hardware("fake-gpu", "Two imaginary nodes", "Imaginary GPU", {"node-1": 8, "node-2": 8}, 80 << 30, 4.0)


@dataclass
class Inventory:
    """Which units of which node are taken; nodes that are down give none."""

    hardware: tuple[Hardware, ...]
    down: set[str] = field(default_factory=set)
    _taken: dict[tuple[str, str], int] = field(default_factory=dict)

    def kind(self, hardware_id: str) -> Hardware | None:
        """The hardware of this id."""
        return next((kind for kind in self.hardware if kind.id == hardware_id), None)

    def free(self, kind: Hardware) -> dict[str, int]:
        """Free units by node, of the nodes that are up."""
        return {
            node: max(0, count - self._taken.get((kind.id, node), 0))
            for node, count in kind.nodes.items()
            if node not in self.down
        }

    def take(self, kind: Hardware, units: int) -> str | None:
        """Take ``units`` of the node that has the most free; None where no node has so many."""
        free = self.free(kind)
        node = max(sorted(free), key=lambda name: free[name], default=None)
        if node is None or free[node] < units:
            return None
        self.hold(kind, node, units)
        return node

    def hold(self, kind: Hardware, node: str, units: int) -> None:
        """Note that ``units`` of ``node`` are taken; negative gives them back."""
        self._taken[kind.id, node] = self._taken.get((kind.id, node), 0) + units

    def offers(self, provider: str, why_unavailable: str | None) -> list[HardwareOffer]:
        """What can be had now."""
        return [self._offer(kind, provider, why_unavailable) for kind in self.hardware]

    def _offer(self, kind: Hardware, provider: str, why_unavailable: str | None) -> HardwareOffer:
        free = sum(self.free(kind).values())
        is_cpu = kind.accelerator == "cpu"
        return HardwareOffer(
            id=kind.id,
            provider=provider,
            name=kind.name,
            accelerator=kind.accelerator,
            accelerator_count=0 if is_cpu else kind.per_replica_limit,
            memory_bytes=kind.memory_bytes,
            price_per_hour=kind.price_per_hour,
            available=why_unavailable is None and free > 0,
            cpu_count=kind.cpu_count,
            why_unavailable=why_unavailable or (None if free else "all of it is in use"),
            free_count=None if is_cpu else free,
        )
