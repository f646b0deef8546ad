"""Tests on a real Kubernetes cluster, whose programs must be built first: ``make test-kubernetes`` does both.

They run only when they are named on the command line.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane.providers.kubernetes_api.client import Json
from tests.support.helm import install, render
from tests.support.kubernetes_cluster import Cluster, running_cluster
from tests.support.kubernetes_site import KubernetesSite, make_site, tiny_image

NAMESPACE = "slipway"
_HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave this folder out of a run of the whole suite."""
    named = [Path(argument.partition("::")[0]).resolve() for argument in config.invocation_params.args]
    return None if any(path == _HERE or _HERE in path.parents for path in named) else True


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for all tests here: it takes half a minute to come up."""
    with running_cluster([tiny_image(tmp_path_factory.mktemp("image"))]) as cluster:
        for node in cluster.nodes:
            cluster.set_gpus(node.name, 4)
        yield cluster


@pytest.fixture(scope="session")
def chart(cluster: Cluster) -> list[Json]:
    """The chart, installed by Helm; its hook is applied by hand, for no image is there that could run it."""
    values = {
        "publicUrl": "https://models.slipway.test",
        "ingress": {"enabled": True, "host": "models.slipway.test", "tlsSecretName": "tls"},
    }
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    manifests = install(cluster.kubeconfig, namespace=NAMESPACE, **values)
    hooks = [manifest for manifest in render(namespace=NAMESPACE, **values) if manifest["kind"] == "Job"]
    for hook in hooks:
        cluster.apply(hook)
    return [*manifests, *hooks]


@pytest.fixture(scope="session")
def site(cluster: Cluster, chart: list[Json], tmp_path_factory: pytest.TempPathFactory) -> KubernetesSite:
    """The chart's namespace, where the provider has the rights of the chart's service account."""
    kubeconfig = cluster.kubeconfig_of(cluster.token_of(NAMESPACE, "slipway"), "slipway")
    return make_site(cluster, tmp_path_factory.mktemp("site"), namespace=NAMESPACE, kubeconfig=kubeconfig)
