"""The Helm chart on a real API server: it takes every object, and the rights are enough and no more."""

from __future__ import annotations

from collections import defaultdict
from uuid import uuid4

import pytest

from control_plane.providers.base import FetchSpec, ReplicaState
from control_plane.providers.kubernetes_api.client import ApiRefusal, Json, KubernetesApi
from tests.control_plane.providers.contract import remove, replica
from tests.kubernetes.conftest import NAMESPACE
from tests.support.kubernetes_cluster import Cluster, manifest_path
from tests.support.kubernetes_site import KubernetesSite

ACCOUNT = f"system:serviceaccount:{NAMESPACE}:slipway"


def test_the_server_takes_and_keeps_every_object(cluster: Cluster, chart: list[Json]) -> None:
    kinds = sorted(manifest["kind"] for manifest in chart)
    assert kinds.count("Deployment") == 4
    assert {"Job", "Ingress", "Service", "ServiceAccount", "Role", "ClusterRole"} <= set(kinds)
    for manifest in chart:
        assert cluster.admin.get(manifest_path(manifest)) is not None


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/api/v1/namespaces/{NAMESPACE}/secrets/slipway"),
        ("GET", f"/api/v1/namespaces/{NAMESPACE}/secrets"),
        ("POST", f"/api/v1/namespaces/{NAMESPACE}/pods"),
        ("POST", f"/api/v1/namespaces/{NAMESPACE}/pods/any/exec"),
        ("DELETE", f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims/any"),
        ("GET", "/api/v1/namespaces/kube-system/pods"),
        ("GET", "/apis/apps/v1/namespaces/default/statefulsets"),
        ("DELETE", "/api/v1/nodes/node-1"),
        ("GET", "/api/v1/pods"),
        ("GET", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/roles"),
    ],
)
def test_what_the_provider_may_not_do(site: KubernetesSite, method: str, path: str) -> None:
    api = KubernetesApi(site.settings.kubernetes_kubeconfig)
    with pytest.raises(ApiRefusal, match="forbidden"):
        api.request(method, path, {}, None if method == "GET" else {})


def test_no_right_is_there_that_is_not_used(cluster: Cluster, site: KubernetesSite, chart: list[Json]) -> None:
    """Every operation once, then the server's own record of what was asked; ``create`` is part of applying."""
    before = len(cluster.audit())
    name = f"slipway-{uuid4().hex}-0"
    site.provider.offers()
    with replica(site, name):
        site.provider.list_owned()
        site.provider.logs(name, tail_bytes=100)
    fetch = FetchSpec(f"slipway-fetch-{uuid4().hex}", "", "kubernetes-cpu", "https://slipway.test/j", "boot", "token")
    site.other_installation.fetch(fetch)  # which has no claim yet
    for provider in (site.provider, site.other_installation):
        remove(provider, fetch.name)
    assert site.provider.find(name).state is ReplicaState.ABSENT

    used = {(entry["verb"], _resource(entry)) for entry in cluster.audit()[before:] if entry["user"] == ACCOUNT}
    granted = _granted(chart)
    applied = {resource for verb, resource in used if verb == "patch"}
    assert granted - {("create", resource) for resource in applied} - {("list", "events")} <= used
    assert used - granted == {("list", "pods everywhere")}, "asked for once, refused, and done without"


def _resource(entry: Json) -> str:
    everywhere = entry["resource"] == "pods" and not entry["namespace"]
    return "pods everywhere" if everywhere else str(entry["resource"])


def _granted(chart: list[Json]) -> set[tuple[str, str]]:
    granted: dict[str, set[str]] = defaultdict(set)
    for manifest in chart:
        for rule in manifest.get("rules", []) if manifest["kind"] in ("Role", "ClusterRole") else ():
            for resource in rule["resources"]:
                granted[resource] |= set(rule["verbs"])
    return {(verb, resource) for resource, verbs in granted.items() for verb in verbs}
