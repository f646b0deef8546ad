"""A whole control plane on a real cluster: a Job fetches the weights, a replica serves them, nothing is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from tests.hub import models
from tests.hub.server import HubServer
from tests.kubernetes.conftest import NAMESPACE
from tests.support.https import make_certificate
from tests.support.kubernetes_agent import behind_tls
from tests.support.kubernetes_cluster import Cluster
from tests.support.kubernetes_site import IMAGE, KubernetesSite, volume
from tests.support.processes import eventually
from tests.support.slipway import RunningSlipway, free_port, slipway_up

CLASS = "end-to-end"


def test_from_a_hub_to_an_answer(cluster: Cluster, site: KubernetesSite, tmp_path: Path) -> None:
    outside, port = cluster.sandbox.outside, free_port()
    certificate = make_certificate(tmp_path / "tls", outside)
    weights = tmp_path / "weights"
    weights.mkdir()
    weights.chmod(0o777)
    cluster.apply(volume(f"weights-{CLASS}", weights, CLASS))
    authority = {"ca.crt": certificate.authority.read_text()}
    metadata = {"name": "authority", "namespace": NAMESPACE}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": authority})
    environment = {
        "SLIPWAY_PROVIDERS": "kubernetes",
        "SLIPWAY_AGENT_URL": f"https://{outside}:{port}",
        "SLIPWAY_KUBERNETES_AGENT_CA": "authority",
        "SLIPWAY_KUBERNETES_KUBECONFIG": str(site.settings.kubernetes_kubeconfig),
        "SLIPWAY_KUBERNETES_SERVING_IMAGE": IMAGE,
        "SLIPWAY_KUBERNETES_STORAGE_CLASS": CLASS,
        "SLIPWAY_KUBERNETES_VOLUME_SIZE": "1Gi",
        "SLIPWAY_KUBERNETES_ACCESS": "host",
        "SLIPWAY_KUBERNETES_CPUS": "0.3",
        "NO_PROXY": "*",
    }
    web: list[int] = []
    with HubServer(host=outside) as hub, behind_tls(outside, port, certificate, web):
        hub.add_repo("org/small", models.tiny_llama(tmp_path / "model"))
        with slipway_up(tmp_path / "data", hub, starter=False, environment=environment) as slipway:
            web.append(httpx.URL(slipway.url).port or 80)
            body = {"model": "org/small", "name": "small", "hardware": "kubernetes-cpu"}
            instance = slipway.api("POST", "/instances", json=body)
            running = _wait_until_running(slipway)
            assert hub.bytes_sent("model.safetensors") > 0
            (snapshot,) = weights.glob("hub/models--org--small/snapshots/*/model.safetensors")
            assert snapshot.read_bytes() == (tmp_path / "model" / "model.safetensors").read_bytes()

            with slipway.client() as client:
                question = {"model": "org/small", "prompt": "hello", "max_tokens": 3}
                answer = client.post(f"{running['api_url']}/completions", json=question)
            assert answer.status_code == 200, answer.text
            assert answer.json()["received"]["prompt"] == "hello"

            timeline = slipway.api("GET", f"/instances/{instance['id']}/events")["items"]
            phases = [event["data"]["to"] for event in timeline if "to" in event["data"]]
            assert phases[-4:] == ["downloading", "provisioning", "starting", "running"]
            slipway.api("DELETE", f"/instances/{instance['id']}")
            slipway.wait_for_phase("small", "terminated", 180)
            assert not [name for name in _ours(cluster) if instance["id"].replace("-", "") in name]
            eventually(
                lambda: not [n for n in _ours(cluster) if n.startswith("slipway-fetch-")], "no agent is left", 120
            )


def _wait_until_running(slipway: RunningSlipway) -> dict[str, Any]:
    """The instance once it runs; what it says meanwhile goes to the test's output."""
    said: list[str] = []

    def runs() -> bool:
        now = slipway.instance("small")
        if f"{now['phase']}: {now['reason']}" not in said[-1:]:
            said.append(f"{now['phase']}: {now['reason']}")
            print(said[-1], flush=True)
        assert now["phase"] != "failed", now
        return bool(now["phase"] == "running")

    eventually(runs, "the instance runs", 180)
    return slipway.instance("small")


def _ours(cluster: Cluster) -> list[str]:
    api = cluster.admin
    kinds = (f"/apis/apps/v1/namespaces/{NAMESPACE}/statefulsets", f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs")
    return [item["metadata"]["name"] for kind in kinds for item in api.items(kind)]
