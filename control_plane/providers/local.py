"""The local provider: replicas are processes of this machine, run by the local host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from control_plane.errors import Unavailable
from control_plane.providers import wire
from control_plane.providers.base import HardwareOffer, ReplicaSpec, ReplicaStatus
from control_plane.providers.local_host import hardware, protocol
from control_plane.providers.local_host.placement import CPU_HARDWARE, GPU_HARDWARE_PREFIX
from control_plane.providers.log_store import LogStore
from control_plane.settings import Settings


class LocalProvider:
    """Asks the local host over its Unix socket; reads logs from disk, where they outlive host and replica."""

    name = "local"
    exact = True  # the local host is the parent of every replica, and ends what an earlier host left behind

    def __init__(self, socket: Path, instances_dir: Path, *, price_per_hour: float, timeout_s: float = 5.0) -> None:
        self._socket = socket
        self._instances_dir = instances_dir
        self._price_per_hour = price_per_hour
        self._timeout_s = timeout_s

    @classmethod
    def from_settings(cls, settings: Settings) -> LocalProvider:
        """The provider of the data folder that ``settings`` name."""
        return cls(settings.local_host_socket, settings.instances_dir, price_per_hour=settings.local_price_per_hour)

    def offers(self) -> list[HardwareOffer]:
        """This machine's processors, then each of its GPUs; memory is what is free now."""
        held: dict[str, int] = {}
        away = None
        try:
            held = self._call("held")
        except Unavailable as error:
            away = error.detail
        cpu = HardwareOffer(
            id=CPU_HARDWARE,
            provider=self.name,
            name=hardware.cpu_name(),
            accelerator="cpu",
            accelerator_count=0,
            memory_bytes=hardware.memory_available(),
            price_per_hour=self._price_per_hour,
            available=away is None,
            cpu_count=hardware.cpu_count(),
            native_bfloat16=hardware.cpu_has_bfloat16(),
            why_unavailable=away,
        )
        return [cpu, *(self._gpu_offer(gpu, held, away) for gpu in hardware.gpus())]

    def _gpu_offer(self, gpu: hardware.Gpu, held: Mapping[str, int], away: str | None) -> HardwareOffer:
        """What is free of a card: in the driver's eyes, and by what its replicas said while they still load."""
        hardware_id = f"{GPU_HARDWARE_PREFIX}{gpu.index}"
        return HardwareOffer(
            id=hardware_id,
            provider=self.name,
            name=f"{gpu.name} (GPU {gpu.index})",
            accelerator=gpu.name,
            accelerator_count=1,
            memory_bytes=max(0, min(gpu.memory_free, gpu.memory_total - held.get(hardware_id, 0))),
            price_per_hour=self._price_per_hour,
            available=away is None,
            cpu_count=hardware.cpu_count(),
            why_unavailable=away,
            free_count=int(hardware_id not in held),
        )

    def create(self, spec: ReplicaSpec) -> ReplicaStatus:
        """Start a replica, or return the one that already has this name."""
        return wire.status_from_json(self._call("create", spec=wire.spec_to_json(spec)))

    def find(self, name: str) -> ReplicaStatus:
        """The replica of this name; ``ABSENT`` if there is none."""
        return wire.status_from_json(self._call("find", name=name))

    def list_owned(self) -> list[ReplicaStatus]:
        """Every replica of the local host: it serves one data folder, so all are ours."""
        return [wire.status_from_json(value) for value in self._call("list")]

    def delete(self, name: str, *, boot_token: str | None, grace_s: float) -> None:
        """Let a replica drain, end it after ``grace_s`` seconds at the latest. Deleting what is absent is fine."""
        self._call("delete", name=name, boot_token=boot_token, grace_s=grace_s)

    def logs(self, name: str, *, tail_bytes: int) -> str:
        """The last ``tail_bytes`` of the replica's log; kept after its death."""
        return self._log(name).tail(tail_bytes).text

    def follow_logs(self, name: str, *, offset: int) -> Iterator[tuple[int, str]]:
        """New log text from ``offset`` (bytes) on, or from that far before the end where it is negative."""
        return self._log(name).follow(offset)

    def _log(self, name: str) -> LogStore:
        return LogStore(self._instances_dir / name / "log")

    def _call(self, operation: str, **arguments: Any) -> Any:
        return protocol.call(self._socket, operation, timeout_s=self._timeout_s, **arguments)
