"""What only schedulers and kubelets can do: hardware that runs out, nodes that fall silent, pods that are evicted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from uuid import uuid4

import pytest

from control_plane.providers.base import ReplicaSpec, ReplicaState
from control_plane.providers.kubernetes_api.manifests import GPU_HARDWARE
from tests.control_plane.providers.contract import boot_at, remove, wait_until
from tests.support.kubernetes_cluster import GPU_MEMORY_MIB, GPU_PRODUCT, Cluster
from tests.support.kubernetes_site import KubernetesSite
from tests.support.processes import eventually

GPU_ID = f"{GPU_HARDWARE}-{GPU_PRODUCT}"


@pytest.fixture
def names(site: KubernetesSite) -> Iterator[list[str]]:
    """Three names; what was made under them is gone afterwards."""
    names = [f"slipway-{uuid4().hex}-{ordinal}" for ordinal in range(3)]
    yield names
    for name in names:
        remove(site.provider, name)


def on_gpus(site: KubernetesSite, name: str, count: int) -> ReplicaSpec:
    return replace(site.spec(name, "boot-1"), hardware_id=GPU_ID, accelerator_count=count)


def test_a_replica_waits_for_gpus_until_some_are_free(cluster: Cluster, site: KubernetesSite, names: list[str]) -> None:
    offers = {offer.id: offer for offer in site.provider.offers()}
    assert (offers[GPU_ID].accelerator_count, offers[GPU_ID].available) == (4, True)
    assert offers[GPU_ID].memory_bytes == GPU_MEMORY_MIB << 20
    for name in names:
        site.provider.create(on_gpus(site, name, 3))
    nodes = {wait_until(site.provider, name, ReplicaState.RUNNING).node for name in names[:2]}
    assert nodes == {"node-1", "node-2"}

    eventually(lambda: "Insufficient nvidia.com/gpu" in (site.provider.find(names[2]).reason or ""), "it says why")
    waiting = site.provider.find(names[2])
    assert (waiting.state, waiting.boot_token) == (ReplicaState.PENDING, "boot-1")
    remove(site.provider, names[0])
    wait_until(site.provider, names[2], ReplicaState.RUNNING)


def test_a_lost_node_is_explained_its_replica_starts_elsewhere_and_the_old_one_is_ended(
    cluster: Cluster, site: KubernetesSite, names: list[str]
) -> None:
    name = names[0]
    site.provider.create(site.spec(name, "boot-1"))
    first = wait_until(site.provider, name, ReplicaState.RUNNING)
    node = cluster.node(first.node or "")
    node.kill_kubelet()
    try:
        lost = wait_until(site.provider, name, ReplicaState.LOST, 90)
        assert f"node {node.name} is not ready" in (lost.reason or "")
        assert boot_at(first.url) == "boot-1", "cut off from the cluster, it runs on"
        remove(site.provider, name)

        site.provider.create(site.spec(name, "boot-2"))
        second = wait_until(site.provider, name, ReplicaState.RUNNING)
        assert (second.boot_token, second.node == node.name) == ("boot-2", False)
    finally:
        node.start_kubelet()
    eventually(lambda: boot_at(first.url) is None, "the node that came back ended what nobody wants", 90)
    assert boot_at(second.url) == "boot-2"
    eventually(lambda: cluster.ready(node.name), "the node is ready again", 60)


def test_an_evicted_replica_is_lost_though_the_cluster_starts_it_again(
    cluster: Cluster, site: KubernetesSite, names: list[str]
) -> None:
    name = names[0]
    site.provider.create(site.spec(name, "boot-1"))
    wait_until(site.provider, name, ReplicaState.RUNNING)
    pod = f"/api/v1/namespaces/{site.settings.kubernetes_namespace}/pods/{name}-0"
    before = (cluster.admin.get(pod) or {})["metadata"]["uid"]
    body = {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": f"{name}-0"}}
    cluster.admin.request("POST", f"{pod}/eviction", {}, body)

    wait_until(site.provider, name, ReplicaState.LOST)
    eventually(lambda: _uid(cluster, pod) not in (None, before), "the cluster has started another pod", 60)
    assert site.provider.find(name).state is ReplicaState.LOST, "which is another boot's, and no boot's of ours"


def _uid(cluster: Cluster, pod: str) -> str | None:
    there = cluster.admin.get(pod)
    return there["metadata"]["uid"] if there else None


def test_a_killed_engine_is_not_brought_back_by_the_cluster(
    cluster: Cluster, site: KubernetesSite, names: list[str]
) -> None:
    """Of the kubelet's restart nobody hears: the boot has ended, and what it wrote last is known."""
    name = names[0]
    site.provider.create(site.spec(name, "boot-1", exit_code=7, message="out of tokens"))
    ended = wait_until(site.provider, name, ReplicaState.EXITED)
    assert ended.exit_code == 7
    eventually(lambda: site.provider.logs(name, tail_bytes=4096).count("out of tokens") > 1, "it was restarted", 60)
    assert (site.provider.find(name).state, site.provider.find(name).exit_code) == (ReplicaState.EXITED, 7)


def test_an_image_that_is_nowhere_is_told(site: KubernetesSite, names: list[str]) -> None:
    settings = site.settings.model_copy(update={"kubernetes_serving_image": "localhost/nowhere:1"})
    provider = type(site.provider).from_settings(settings)
    provider.create(site.spec(names[0], "boot-1"))
    eventually(lambda: "localhost/nowhere:1" in (provider.find(names[0]).reason or ""), "the image is named")
    assert provider.find(names[0]).state is ReplicaState.PENDING


def test_a_volume_that_nobody_provides_is_told(site: KubernetesSite, names: list[str]) -> None:
    settings = site.settings.model_copy(update={"kubernetes_volume_claim": "no-such-claim"})
    provider = type(site.provider).from_settings(settings)
    provider.create(site.spec(names[0], "boot-1"))
    eventually(lambda: '"no-such-claim" not found' in (provider.find(names[0]).reason or ""), "the claim is named")
    assert provider.find(names[0]).state is ReplicaState.PENDING
