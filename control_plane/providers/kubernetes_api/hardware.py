"""Which hardware a cluster offers: what its nodes can give, less what pods there ask for."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from control_plane.providers.base import HardwareOffer
from control_plane.providers.kubernetes_api.client import Json
from control_plane.providers.kubernetes_api.manifests import CPU_HARDWARE, GPU_HARDWARE, PRODUCT_LABEL
from control_plane.providers.kubernetes_api.options import ClusterOptions
from control_plane.providers.kubernetes_api.pod import GPU_RESOURCE
from control_plane.providers.kubernetes_api.state import node_trouble

#: MiB of one GPU, as GPU feature discovery labels nodes.
MEMORY_LABEL = "nvidia.com/gpu.memory"
#: As node feature discovery labels nodes: AVX-512 or AMX with bfloat16.
_BFLOAT16_LABELS = (
    "feature.node.kubernetes.io/cpu-cpuid.AVX512BF16",
    "feature.node.kubernetes.io/cpu-cpuid.AMXBF16",
)
_UNLABELLED = f"its nodes lack the label {MEMORY_LABEL}: install GPU feature discovery, or set the label"
_UNITS = {"": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_UNITS |= {unit: 1000.0**power for power, unit in enumerate(["k", "M", "G", "T", "P", "E"], start=1)}
_UNITS |= {unit: 1024.0**power for power, unit in enumerate(["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"], start=1)}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE]([+-]?[0-9]+)|([a-zA-Z]*))")


def quantity(text: str | int | float) -> float:
    """A Kubernetes quantity as a number: ``500m`` is 0.5, ``2Gi`` is 2147483648.

    :raises ValueError: it is none.
    """
    match = _QUANTITY.fullmatch(str(text))
    if match is None or (match[3] or "") not in _UNITS:
        raise ValueError(f"{text!r} is no quantity")
    return float(match[1]) * (10.0 ** int(match[2]) if match[2] else _UNITS[match[3] or ""])


@dataclass
class _Node:
    """What a node can give, and how much of it is asked for."""

    raw: Json
    cpus: float
    memory: float
    gpus: int
    free_cpus: float
    free_memory: float
    free_gpus: int

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.raw["metadata"].get("labels") or {})


def offers(nodes: list[Json], pods: Iterable[Json], options: ClusterOptions, *, all_seen: bool) -> list[HardwareOffer]:
    """The processors of the cluster, then its GPUs by product.

    :param all_seen: whether ``pods`` are those of every namespace; else nobody can tell what is free.
    """
    usable = [_node(node) for node in nodes if _usable(node, options)]
    for pod in pods:
        _take(usable, pod)
    by_product: dict[str, list[_Node]] = defaultdict(list)
    for node in usable:
        if node.gpus:
            by_product[node.labels.get(PRODUCT_LABEL, "")].append(node)
    plain = [node for node in usable if not _tainted(node.raw, options, gpu=False)]
    gpus = [_gpu_offer(product, by_product[product], options, all_seen) for product in sorted(by_product)]
    return [_cpu_offer(plain, options), *gpus]


def unreachable(why: str, options: ClusterOptions) -> HardwareOffer:
    """What is listed while the cluster cannot be asked."""
    return replace(_cpu_offer([], options), why_unavailable=why)


def _cpu_offer(nodes: list[_Node], options: ClusterOptions) -> HardwareOffer:
    roomiest = max(nodes, key=lambda node: node.free_memory, default=None)
    free = roomiest is not None and roomiest.free_memory > 0
    return HardwareOffer(
        id=CPU_HARDWARE,
        provider="kubernetes",
        name="A node's processors",
        accelerator="cpu",
        accelerator_count=0,
        memory_bytes=int(roomiest.free_memory if free and roomiest else 0),
        price_per_hour=options.price_per_hour,
        available=free,
        cpu_count=int(roomiest.cpus) if roomiest else 0,
        native_bfloat16=bool(nodes) and all(_has_bfloat16(node) for node in nodes),
        why_unavailable=None if free else "no node is ready that has memory left and that replicas may run on",
    )


def _gpu_offer(product: str, nodes: list[_Node], options: ClusterOptions, all_seen: bool) -> HardwareOffer:
    memory = min((int(node.labels[MEMORY_LABEL]) << 20 for node in nodes if _has_memory(node)), default=0)
    free = sum(node.free_gpus for node in nodes)
    why = _UNLABELLED if not memory else "all are in use: a replica would wait for one" if free < 1 else None
    return HardwareOffer(
        id=f"{GPU_HARDWARE}-{product}" if product else GPU_HARDWARE,
        provider="kubernetes",
        name=product.replace("-", " ") or "GPU",
        accelerator=product.replace("-", " ") or "GPU",
        accelerator_count=max(node.gpus for node in nodes),
        memory_bytes=memory,
        price_per_hour=options.price_per_hour,
        available=why is None,
        cpu_count=int(max(node.cpus for node in nodes)),
        why_unavailable=why,
        free_count=max(0, free) if all_seen else None,
    )


def _node(raw: Json) -> _Node:
    given = (raw.get("status") or {}).get("allocatable") or {}
    cpus, memory = quantity(given.get("cpu", "0")), quantity(given.get("memory", "0"))
    gpus = int(quantity(given.get(GPU_RESOURCE, "0")))
    return _Node(raw, cpus, memory, gpus, cpus, memory, gpus)


def _take(nodes: list[_Node], pod: Json) -> None:
    """Subtract what a pod asks for from its node, as the scheduler does."""
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return
    for node in nodes:
        if node.raw["metadata"]["name"] != pod["spec"].get("nodeName"):
            continue
        for container in pod["spec"].get("containers") or []:
            asked = (container.get("resources") or {}).get("requests") or {}
            node.free_cpus -= quantity(asked.get("cpu", "0"))
            node.free_memory -= quantity(asked.get("memory", "0"))
            node.free_gpus -= int(quantity(asked.get(GPU_RESOURCE, "0")))


def _usable(node: Json, options: ClusterOptions) -> bool:
    labels = node["metadata"].get("labels") or {}
    return (
        not (node.get("spec") or {}).get("unschedulable")
        and all(labels.get(name) == value for name, value in options.node_selector.items())
        and node_trouble(node, node["metadata"]["name"]) is None
        and not _tainted(node, options, gpu=True)
    )


def _tainted(node: Json, options: ClusterOptions, *, gpu: bool) -> bool:
    """Whether a taint keeps replicas away."""
    taints = (node.get("spec") or {}).get("taints") or []
    return any(
        taint["effect"] != "PreferNoSchedule"
        and not (gpu and taint["key"] == GPU_RESOURCE)
        and not any(_tolerates(toleration, taint) for toleration in options.tolerations)
        for taint in taints
    )


def _tolerates(toleration: Json, taint: Json) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    return bool(toleration.get("key") == taint["key"] and toleration.get("value", "") == taint.get("value", ""))


def _has_memory(node: _Node) -> bool:
    return node.labels.get(MEMORY_LABEL, "").isdecimal()


def _has_bfloat16(node: _Node) -> bool:
    return any(node.labels.get(label) == "true" for label in _BFLOAT16_LABELS)
