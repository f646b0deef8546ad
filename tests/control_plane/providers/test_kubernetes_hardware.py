"""Which hardware a cluster offers, from its nodes and what pods there ask for."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane.providers.kubernetes_api.hardware import offers, quantity
from control_plane.providers.kubernetes_api.options import ClusterOptions

OPTIONS = ClusterOptions(
    namespace="slipway",
    owner="ours",
    image="slipway",
    price_per_hour=2.5,
    node_selector={"pool": "models"},
    tolerations=[{"key": "dedicated", "operator": "Equal", "value": "models", "effect": "NoSchedule"}],
)
H200 = {"pool": "models", "nvidia.com/gpu.product": "NVIDIA-H200", "nvidia.com/gpu.memory": "143771"}
BFLOAT16 = {"feature.node.kubernetes.io/cpu-cpuid.AMXBF16": "true"}


def node(name: str, gpus: int = 0, ready: str = "True", **changes: Any) -> dict[str, Any]:
    """A node of the pool with 16 processors and 64 GiB."""
    spec = {"taints": [changes["taint"] | {"effect": "NoSchedule"}]} if "taint" in changes else {}
    status = {
        "allocatable": {"cpu": "16", "memory": "64Gi", "nvidia.com/gpu": str(gpus)},
        "conditions": [{"type": "Ready", "status": ready}],
    }
    return {
        "metadata": {"name": name, "labels": changes.get("labels", H200)},
        "spec": spec | {"unschedulable": changes.get("cordoned", False)},
        "status": status,
    }


def pod(node: str, phase: str = "Running", **requests: str) -> dict[str, Any]:
    asked = {name.replace("gpu", "nvidia.com/gpu"): number for name, number in requests.items()}
    return {"spec": {"nodeName": node, "containers": [{"resources": {"requests": asked}}]}, "status": {"phase": phase}}


def test_what_is_offered_is_what_pods_leave() -> None:
    nodes = [node("one", 4), node("two", 8)]
    pods = [pod("one", gpu="3", memory="60Gi"), pod("two", memory="61Gi"), pod("two", "Succeeded", gpu="8")]
    cpu, gpu = offers(nodes, pods, OPTIONS, all_seen=True)
    assert (cpu.id, cpu.memory_bytes, cpu.cpu_count, cpu.available) == ("kubernetes-cpu", 4 << 30, 16, True)
    assert (gpu.id, gpu.accelerator, gpu.accelerator_count) == ("kubernetes-gpu-NVIDIA-H200", "NVIDIA H200", 8)
    assert (gpu.free_count, gpu.memory_bytes, gpu.price_per_hour) == (9, 143771 << 20, 2.5)


def test_when_all_are_in_use_it_says_so() -> None:
    _, gpu = offers([node("one", 2)], [pod("one", gpu="2")], OPTIONS, all_seen=True)
    assert (gpu.available, gpu.why_unavailable) == (False, "all are in use: a replica would wait for one")


@pytest.mark.parametrize(
    "unusable",
    [
        node("n", 8, labels=H200 | {"pool": "training"}),
        node("n", 8, ready="Unknown"),
        node("n", 8, cordoned=True),
        node("n", 8, taint={"key": "reserved"}),
        node("n", 8, taint={"key": "dedicated", "value": "training"}),
    ],
)
def test_nodes_that_replicas_cannot_use(unusable: dict[str, Any]) -> None:
    (cpu,) = offers([unusable], [], OPTIONS, all_seen=True)
    assert not cpu.available
    assert cpu.why_unavailable


def test_taints_that_are_tolerated() -> None:
    dedicated = node("one", 1, taint={"key": "dedicated", "value": "models"})
    for_gpus = node("two", 2, taint={"key": "nvidia.com/gpu"})
    cpu, gpu = offers([dedicated, for_gpus], [], OPTIONS, all_seen=True)
    assert (cpu.available, gpu.free_count) == (True, 3)
    (cpu, gpu) = offers([for_gpus], [], OPTIONS, all_seen=True)
    assert (cpu.available, gpu.available) == (False, True), "only replicas with GPUs tolerate that one"


def test_gpus_of_unknown_memory_are_not_offered_as_if_they_fitted() -> None:
    _, gpu = offers([node("one", 2, labels={"pool": "models"})], [], OPTIONS, all_seen=True)
    assert (gpu.id, gpu.available) == ("kubernetes-gpu", False)
    assert "nvidia.com/gpu.memory" in (gpu.why_unavailable or "")


def test_processors_compute_in_bfloat16_where_every_node_says_so() -> None:
    with_it, without = node("one", labels=H200 | BFLOAT16), node("two")
    assert offers([with_it], [], OPTIONS, all_seen=True)[0].native_bfloat16
    assert not offers([with_it, without], [], OPTIONS, all_seen=True)[0].native_bfloat16


@pytest.mark.parametrize(
    ("text", "number"),
    [("500m", 0.5), ("2", 2), ("1.5Gi", 1.5 * 2**30), ("3k", 3000), ("12e3", 12000), ("1E", 1e18), (4, 4)],
)
def test_quantities(text: str | int, number: float) -> None:
    assert quantity(text) == number


def test_what_is_no_quantity() -> None:
    with pytest.raises(ValueError, match="no quantity"):
        quantity("many")
