"""What is asked of Slurm for a replica, and what its job is told: the two halves of a launch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control_plane.providers.base import HardwareOffer, ProviderError, ReplicaSpec
from control_plane.providers.engine_flags import check_name, check_options, engine_flags
from control_plane.providers.slurm_jobs.job import Tag
from control_plane.providers.slurm_jobs.node import CPU_HARDWARE, GPU_HARDWARE, Node

_MIB, _GIB = 1 << 20, 1 << 30
#: Seconds without an answer from the shared storage after which a job must think that another has taken over.
LEASE_S = 30.0
#: What the job's own environment holds; Slurm adds its variables, and nothing of ours travels along.
_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class JobOptions:
    """What every job of this installation has in common.

    :ivar engine: ``slipway-serve`` on the nodes: a path, or a name to look up in their PATH.
    :ivar cpus: processors of a replica that says nothing of its own.
    :ivar requeue: whether Slurm itself runs a job again that it took away.
    """

    engine: str = "slipway-serve"
    cpus: int = 4
    time_limit_s: float | None = None
    requeue: bool = False


def check(spec: ReplicaSpec, offers: Iterable[HardwareOffer]) -> None:
    """
    :raises ProviderError: ``spec`` can never run here.
    """
    check_name(spec.name)
    check_options(spec)
    if spec.weights.path is None or not spec.weights.path.is_dir():
        detail = f"the model folder {spec.weights.path} is not there"
        raise ProviderError(detail, "Start again: weights come first, onto storage that the nodes see as well.")
    offer = next((offer for offer in offers if offer.id == spec.hardware_id), None)
    if offer is None:
        detail = f"the Slurm partition has no hardware {spec.hardware_id!r}"
        raise ProviderError(detail, "Choose one that GET /hardware lists.")
    if spec.accelerator_count > offer.accelerator_count:
        detail = f"no node has {spec.accelerator_count} of {offer.name}: the most is {offer.accelerator_count}"
        raise ProviderError(detail, "Choose hardware with more memory, or more devices per node.")


def plan(spec: ReplicaSpec, options: JobOptions, nodes: Iterable[Node], folder: Path) -> dict[str, Any]:
    """``replica.json``: what ``start_script.py`` runs. No secret; ``addresses`` are those of the nodes."""
    device = "cpu" if spec.hardware_id == CPU_HARDWARE else "cuda"
    flags = engine_flags(spec, api_key_file=str(folder / "api-key"), device=device)
    return {
        "boot_token": spec.boot_token,
        "argv": [options.engine, str(spec.weights.path), *flags],
        "environment": {
            "HF_HUB_OFFLINE": "1",  # weights are here already; an engine has no reason to talk to the hub
            "PYTHONUNBUFFERED": "1",
            **({"CUDA_VISIBLE_DEVICES": ""} if spec.hardware_id == CPU_HARDWARE else {}),
        },
        "lease_s": LEASE_S,
        "addresses": {node.name: node.address for node in nodes},
    }


def job(spec: ReplicaSpec, options: JobOptions, partition: str, folder: Path) -> dict[str, Any]:
    """The job's description for slurmrestd: one task on one node.

    The folder travels in the environment, not as the script's argument: given ``argv``, slurmrestd 22.05 crashes.
    """
    description: dict[str, Any] = {
        "name": spec.name,
        "comment": Tag(spec.owner, spec.boot_token, spec.labels).to_comment(),
        "partition": partition,
        "tasks": 1,
        "cpus_per_task": math.ceil(spec.limits.cpus or options.cpus),
        "environment": {"PATH": _SEARCH_PATH, "SLIPWAY_REPLICA_FOLDER": str(folder)},
        "current_working_directory": str(folder),
        "standard_output": str(folder / "slurm-%j.out"),
        "open_mode": "append",
        # Not "requeue": false, which slurmrestd takes and does not pass on.
        "requeue" if options.requeue else "no_requeue": True,
    }
    if spec.hardware_id != CPU_HARDWARE:
        kind = spec.hardware_id.removeprefix(GPU_HARDWARE).removeprefix("-")
        description["gres"] = ":".join(filter(None, ("gpu", kind, str(max(1, spec.accelerator_count)))))
    if memory := _memory_bytes(spec):
        description["memory_per_node"] = math.ceil(memory / _MIB)
    if options.time_limit_s is not None:
        description["time_limit"] = math.ceil(options.time_limit_s / 60)
    return description


def _memory_bytes(spec: ReplicaSpec) -> int | None:
    """What the job asks for of its node's memory; None leaves it to the partition.

    On processors a job without a limit of its own must have what its plan needs, and room for the start script and the
    engine's libraries: clusters that enforce memory kill it at the partition's default otherwise.
    """
    if spec.limits.memory_bytes is not None:
        return spec.limits.memory_bytes
    return spec.memory_bytes + _GIB if spec.hardware_id == CPU_HARDWARE and spec.memory_bytes else None
