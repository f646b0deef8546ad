"""The kubernetes provider against an emulated API: requests, states, hardware; ``tests/kubernetes`` is the real one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from control_plane.providers.base import (
    FetchSpec,
    Limits,
    ProviderError,
    ProviderUnavailable,
    ReplicaSpec,
    ReplicaState,
    Weights,
    WeightsFetcher,
)
from control_plane.providers.kubernetes import KubernetesProvider
from control_plane.providers.registry import make_providers
from control_plane.settings import Settings
from tests.support.kmock_cluster import Emulator, emulated_cluster, write_kubeconfig

NAME = "slipway-0198c0de-0"
SETS, JOBS, PODS = "apps/v1/statefulsets", "batch/v1/jobs", "v1/pods"
PENDING, RUNNING, EXITED, LOST, ABSENT = ReplicaState


@pytest.fixture
def emulated(tmp_path: Path) -> Iterator[tuple[Emulator, Path]]:
    with emulated_cluster(tmp_path) as emulated:
        yield emulated


@pytest.fixture
def cluster(emulated: tuple[Emulator, Path]) -> Emulator:
    return emulated[0]


@pytest.fixture
def settings(emulated: tuple[Emulator, Path], tmp_path: Path) -> Settings:
    return Settings(
        data_dir=tmp_path / "data",
        secret_key="ours",
        providers=["kubernetes"],
        kubernetes_kubeconfig=emulated[1],
        kubernetes_serving_image="registry.test/slipway:1",
        kubernetes_node_selector={"pool": "models"},
        kubernetes_tolerations=[{"key": "dedicated", "operator": "Equal", "value": "models", "effect": "NoSchedule"}],
        kubernetes_price_per_hour=2.5,
    )


@pytest.fixture
def provider(settings: Settings) -> KubernetesProvider:
    provider = make_providers(settings)["kubernetes"]
    assert isinstance(provider, KubernetesProvider)
    return provider


def spec(**changes: Any) -> ReplicaSpec:
    whole = ReplicaSpec(
        name=NAME,
        owner="ours",
        weights=Weights("org/model", "c" * 40, None),
        served_model_name="org/model",
        hardware_id="kubernetes-cpu",
        api_key="key-of-the-replica",
        boot_token="boot-1",
        memory_bytes=1 << 30,
        labels={"instance": "i-1", "note": "any words: ß"},
        engine_options={"max-model-len": "$(HOME)"},
    )
    return replace(whole, **changes)


FETCH = FetchSpec("slipway-fetch-1", "ours", "kubernetes-cpu", "https://slipway.test/job", "boot-1", "agent-token")


def pod_template(cluster: Emulator, resource: str = SETS, name: str = NAME) -> dict[str, Any]:
    return dict(cluster.get(resource, name)["spec"]["template"]["spec"])


def start(cluster: Emulator, provider: KubernetesProvider) -> str:
    """A replica that runs on node-1; its pod."""
    cluster.add_node("node-1")
    provider.create(spec())
    pod = cluster.make_pod(NAME, node="node-1")
    cluster.run(pod)
    assert provider.find(NAME).state is RUNNING
    return pod


def test_what_a_replica_is_made_of(provider: KubernetesProvider, cluster: Emulator) -> None:
    provider.create(spec(limits=Limits(cpus=2.5, memory_bytes=1 << 31)))

    pod = pod_template(cluster)
    (container,) = pod["containers"]
    assert container["command"] == ["slipway-serve"]
    assert container["args"][0] == "org/model"
    assert {f"--revision={'c' * 40}", "--boot-id=boot-1", "--device=cpu"} <= set(container["args"])
    assert "--max-model-len=$$(HOME)" in container["args"], "words of people are not expanded"
    assert container["resources"]["limits"] == {"cpu": "2500m", "memory": str(1 << 31)}
    assert container["resources"]["requests"] == {"cpu": "2500m", "memory": str(1 << 30)}
    probes = [container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")]
    assert probes == ["/health", "/health", "/ready"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert (pod["securityContext"]["runAsNonRoot"], pod["automountServiceAccountToken"]) == (True, False)
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "hostNetwork" not in pod
    assert pod["nodeSelector"] == {"pool": "models"}
    assert {"key": "dedicated", "operator": "Equal", "value": "models", "effect": "NoSchedule"} in pod["tolerations"]
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "weights"]
    assert mount["readOnly"] is True


def test_gpus_by_product_and_count(provider: KubernetesProvider, cluster: Emulator) -> None:
    provider.create(spec(hardware_id="kubernetes-gpu-NVIDIA-H200", accelerator_count=2, memory_bytes=100 << 30))
    pod = pod_template(cluster)
    resources = pod["containers"][0]["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == "2"
    assert "memory" not in resources["requests"], "the plan's memory is the device's"
    assert pod["nodeSelector"] == {"pool": "models", "nvidia.com/gpu.product": "NVIDIA-H200"}
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
    assert "--device=cuda" in pod["containers"][0]["args"]


def test_the_key_is_in_a_secret_that_goes_with_its_replica(provider: KubernetesProvider, cluster: Emulator) -> None:
    provider.create(spec())
    replica = cluster.get(SETS, NAME)
    (companion,) = {volume["secret"]["secretName"] for volume in pod_template(cluster)["volumes"] if "secret" in volume}
    secret = cluster.get("v1/secrets", companion)
    assert secret["stringData"] == {"secret": "key-of-the-replica"}
    for owned in (secret, cluster.get("v1/services", replica["spec"]["serviceName"])):
        assert [owner["uid"] for owner in owned["metadata"]["ownerReferences"]] == [replica["metadata"]["uid"]]
    elsewhere = [request for request in cluster.seen if request.resource and request.resource.plural != "secrets"]
    assert not any("key-of-the-replica" in request.text for request in elsewhere)


def test_everything_is_applied_by_the_server_under_our_name(provider: KubernetesProvider, cluster: Emulator) -> None:
    provider.create(spec())
    writes = [request for request in cluster.seen if request.method.value != "GET"]
    assert {request.method.value for request in writes} == {"PATCH"}
    assert {request.params["fieldManager"] for request in writes} == {"slipway"}
    applied = [request for request in writes if request.headers["Content-Type"] == "application/apply-patch+yaml"]
    assert [request.resource.plural for request in applied] == ["statefulsets", "services", "secrets"]


def test_creating_it_again_changes_nothing(provider: KubernetesProvider, cluster: Emulator) -> None:
    start(cluster, provider)
    before = cluster.get(SETS, NAME)
    assert provider.create(spec()).boot_token == "boot-1"
    assert provider.create(spec(boot_token="boot-2", api_key="another")).boot_token == "boot-1"
    assert cluster.get(SETS, NAME) == before


def test_another_boot_that_was_first_is_not_overwritten(provider: KubernetesProvider, cluster: Emulator) -> None:
    """Two workers that both saw nothing: the server itself refuses the second."""
    provider.create(spec())
    cluster.refusals["GET statefulsets"] = (404, "not there, as it was a moment ago")
    with pytest.raises(ProviderError, match="immutable"):
        provider.create(spec(boot_token="boot-2"))
    cluster.refusals.clear()
    assert provider.find(NAME).boot_token == "boot-1"


def test_a_create_that_was_cut_short_is_finished_by_the_next(provider: KubernetesProvider, cluster: Emulator) -> None:
    cluster.refusals["PATCH secrets"] = (500, "the worker dies here")
    with pytest.raises(ProviderUnavailable):
        provider.create(spec())
    cluster.refusals.clear()
    assert (provider.find(NAME).state, provider.find(NAME).boot_token) == (PENDING, None)
    assert provider.create(spec()).boot_token == "boot-1"


def test_why_it_is_pending(provider: KubernetesProvider, cluster: Emulator) -> None:
    provider.create(spec())
    replica = cluster.get(SETS, NAME)
    cluster.event(replica["metadata"]["uid"], "FailedCreate", "exceeded quota: gpus")
    assert provider.find(NAME).reason == "FailedCreate: exceeded quota: gpus"

    pod = cluster.make_pod(NAME)
    words = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words}
    cluster.patch(PODS, pod, {"status": {"conditions": [condition]}})
    assert (provider.find(NAME).state, provider.find(NAME).reason) == (PENDING, words)

    cluster.patch(PODS, pod, {"spec": {"nodeName": "node-1"}, "status": {"conditions": []}})
    cluster.waits(pod, "ContainerCreating")
    assert provider.find(NAME).reason == "node node-1 prepares its container (image, volumes)"
    cluster.event(cluster.get(PODS, pod)["metadata"]["uid"], "FailedMount", "no such volume")
    assert provider.find(NAME).reason == "FailedMount: no such volume"
    cluster.waits(pod, "ImagePullBackOff", 'Back-off pulling image "registry.test/slipway:1"')
    assert provider.find(NAME).reason == 'ImagePullBackOff: Back-off pulling image "registry.test/slipway:1"'


@pytest.mark.parametrize(
    ("ended", "code", "words"),
    [
        ({"reason": "Error", "exitCode": 3}, 3, "Error"),
        ({"reason": "OOMKilled", "exitCode": 137}, -9, "it needed more memory than its limit"),
    ],
)
def test_a_container_that_the_kubelet_started_again_has_ended(
    provider: KubernetesProvider, cluster: Emulator, ended: dict[str, Any], code: int, words: str
) -> None:
    pod = start(cluster, provider)
    cluster.run(pod, restarts=1, ended=ended)
    status = provider.find(NAME)
    assert (status.state, status.exit_code, status.reason, status.url) == (EXITED, code, words, None)


def test_a_silent_node_is_told_and_an_evicted_pod_is_lost(provider: KubernetesProvider, cluster: Emulator) -> None:
    pod = start(cluster, provider)
    cluster.node_falls_silent("node-1")
    cluster.run(pod, ready=False)
    told = "node node-1 is not ready: NodeStatusUnknown: Kubelet stopped posting node status."
    assert (provider.find(NAME).state, provider.find(NAME).reason) == (RUNNING, told)

    cluster.patch(PODS, pod, {"metadata": {"deletionTimestamp": "2026-01-01T00:00:30Z"}})
    assert (provider.find(NAME).state, provider.find(NAME).reason) == (LOST, told)

    provider.delete(NAME, boot_token=None, grace_s=30)
    assert not cluster.exists(PODS, pod), "a node that cannot answer is not waited for"
    assert provider.find(NAME).state is ABSENT


def test_a_pod_that_was_replaced_behind_our_back_is_lost(provider: KubernetesProvider, cluster: Emulator) -> None:
    pod = start(cluster, provider)
    uid = cluster.get(PODS, pod)["metadata"]["uid"]
    cluster.event(uid, "Preempted", "Preempted by default/training on node node-1", kind="Normal")
    cluster.remove_pod(NAME)
    cluster.run(cluster.make_pod(NAME, node="node-1"))
    status = provider.find(NAME)
    assert (status.state, status.reason) == (LOST, "Preempted: Preempted by default/training on node node-1")


def test_a_pod_that_makes_room_is_lost_in_the_clusters_words(provider: KubernetesProvider, cluster: Emulator) -> None:
    pod = start(cluster, provider)
    words = {"reason": "PreemptionByScheduler", "message": "preempting to accommodate a higher priority pod"}
    condition = {"type": "DisruptionTarget", "status": "True"} | words
    going = {"metadata": {"deletionTimestamp": "2026-01-01T00:00:30Z"}, "status": {"conditions": [condition]}}
    cluster.patch(PODS, pod, going)
    status = provider.find(NAME)
    assert (status.state, status.reason) == (LOST, ": ".join(words.values()))


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}, "Evicted: low on memory"),
        ({"phase": "Failed", "reason": "Terminated", "message": "node shutdown"}, "Terminated: node shutdown"),
    ],
)
def test_what_a_kubelet_gives_up_is_lost(
    provider: KubernetesProvider, cluster: Emulator, status: dict[str, Any], words: str
) -> None:
    pod = start(cluster, provider)
    cluster.patch(PODS, pod, {"status": status})
    assert (provider.find(NAME).state, provider.find(NAME).reason) == (LOST, words)


def test_a_replica_without_its_node_is_lost(provider: KubernetesProvider, cluster: Emulator) -> None:
    pod = start(cluster, provider)
    cluster.run(pod, ready=False)
    cluster.refusals["GET nodes"] = (404, "no such node")
    assert (provider.find(NAME).state, provider.find(NAME).reason) == (LOST, "node node-1 is gone")


def test_a_deletion_is_waited_for_and_shortened_by_none_but_us(provider: KubernetesProvider, cluster: Emulator) -> None:
    pod = start(cluster, provider)
    provider.delete(NAME, boot_token=None, grace_s=7.5)
    assert cluster.get(PODS, pod)["metadata"]["deletionGracePeriodSeconds"] == 8
    assert (provider.find(NAME).state, provider.find(NAME).boot_token) == (RUNNING, "boot-1")
    assert provider.create(spec(boot_token="boot-2")).boot_token == "boot-1", "one at a time"
    cluster.remove_pod(NAME)
    assert provider.find(NAME).state is ABSENT
    provider.delete(NAME, boot_token=None, grace_s=7.5)


def test_only_what_is_ours_is_seen_and_touched(settings: Settings, cluster: Emulator) -> None:
    theirs = KubernetesProvider.from_settings(settings.model_copy(update={"secret_key": SecretStr("theirs")}))
    ours = KubernetesProvider.from_settings(settings)
    pod = start(cluster, ours)
    assert theirs.list_owned() == []
    assert theirs.find(NAME).state is ABSENT
    theirs.delete(NAME, boot_token=None, grace_s=1)
    assert cluster.exists(SETS, NAME)
    assert cluster.exists(PODS, pod)
    (listed,) = ours.list_owned()
    assert (listed.state, listed.node, dict(listed.labels)) == (RUNNING, "node-1", dict(spec().labels))


def test_logs_are_copied_and_outlive_the_pod(provider: KubernetesProvider, cluster: Emulator) -> None:
    pod = start(cluster, provider)
    first = "2026-01-01T00:00:00.000000001Z one\n2026-01-01T00:00:00.000000002Z two\n"
    cluster.logs[pod] = first + "2026-01-01T00:00:00.000000002Z half a li"
    assert provider.logs(NAME, tail_bytes=100) == "one\ntwo\n"
    cluster.logs[pod] = first + "2026-01-01T00:00:00.000000002Z half a line\n"
    assert list(provider.follow_logs(NAME, offset=8)) == [(20, "half a line\n")]
    assert list(provider.follow_logs(NAME, offset=20)) == []
    provider.delete(NAME, boot_token=None, grace_s=1)
    cluster.remove_pod(NAME)
    assert provider.logs(NAME, tail_bytes=15) == "half a line\n"


def test_what_a_kubelet_says_instead_of_a_log_is_no_log(provider: KubernetesProvider, cluster: Emulator) -> None:
    pod = start(cluster, provider)
    cluster.logs[pod] = "unable to retrieve container logs for containerd://0123\n"
    assert provider.logs(NAME, tail_bytes=100) == ""
    cluster.logs[pod] = "2026-01-01T00:00:00.000000001Z one\n"
    assert provider.logs(NAME, tail_bytes=100) == "one\n"


def test_an_agent_is_a_job_beside_the_claim_that_it_fills(provider: KubernetesProvider, cluster: Emulator) -> None:
    assert isinstance(provider, WeightsFetcher)
    assert provider.fetch(FETCH).state is PENDING
    assert provider.fetch(FETCH).boot_token == "boot-1"
    job, (claim,) = cluster.get(JOBS, FETCH.name), [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod_template(cluster, JOBS, FETCH.name)["volumes"]
        if "persistentVolumeClaim" in volume
    ]  # fmt: skip
    assert provider.location("kubernetes-cpu") == f"kubernetes:slipway/{claim}"
    assert cluster.get("v1/persistentvolumeclaims", claim)["spec"]["accessModes"] == ["ReadWriteMany"]
    assert job["spec"]["backoffLimit"] == 0
    container = pod_template(cluster, JOBS, FETCH.name)["containers"][0]
    assert container["command"] == ["slipway-agent"]
    assert "--job-url=https://slipway.test/job" in container["args"]
    assert "agent-token" not in json.dumps(job)

    pod = cluster.make_pod(FETCH.name, owner=JOBS, node="node-1")
    ended = {"containerStatuses": [{"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}
    cluster.patch(PODS, pod, {"status": ended | {"phase": "Succeeded"}})
    status = provider.find(FETCH.name)
    assert (status.state, status.exit_code, status.url) == (EXITED, 0, None)
    assert [listed.name for listed in provider.list_owned()] == [FETCH.name]
    provider.delete(FETCH.name, boot_token=None, grace_s=1)
    cluster.remove_pod(FETCH.name)
    assert provider.find(FETCH.name).state is ABSENT


def test_models_that_come_with_slipway_are_in_the_image(provider: KubernetesProvider, cluster: Emulator) -> None:
    provider.create(spec(weights=Weights("slipway/starter", None, Path("/here"))))
    pod = pod_template(cluster)
    assert pod["containers"][0]["args"][0] == "/opt/slipway/src/starter/model"
    assert not any("persistentVolumeClaim" in volume for volume in pod["volumes"])


def test_offers_without_the_right_to_see_all_pods(provider: KubernetesProvider, cluster: Emulator) -> None:
    labels = {"pool": "models", "nvidia.com/gpu.product": "NVIDIA-H200", "nvidia.com/gpu.memory": "143771"}
    cluster.add_node("node-1", gpus=2, labels=labels)
    provider.create(spec(hardware_id="kubernetes-gpu-NVIDIA-H200", accelerator_count=2))
    cluster.make_pod(NAME, node="node-1")
    assert provider.offers()[1].free_count == 0
    cluster.refusals["GET pods everywhere"] = (403, "pods is forbidden at the cluster scope")
    gpu = provider.offers()[1]
    assert (gpu.available, gpu.free_count) == (False, None), "our own are counted; nobody can tell what is free"


def test_offers_of_a_cluster_that_does_not_answer(tmp_path: Path) -> None:
    kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:1")
    provider = KubernetesProvider.from_settings(Settings(data_dir=tmp_path, kubernetes_kubeconfig=kubeconfig))
    (offer,) = provider.offers()
    assert not offer.available
    assert "does not answer" in (offer.why_unavailable or "")
    with pytest.raises(ProviderUnavailable, match="does not answer"):
        provider.find(NAME)


def test_rights_that_are_missing_decide_nothing(provider: KubernetesProvider, cluster: Emulator) -> None:
    cluster.refusals["GET statefulsets"] = (403, "statefulsets is forbidden: User cannot get resource")
    with pytest.raises(ProviderUnavailable, match="User cannot get") as refusal:
        provider.find(NAME)
    assert "Helm chart" in refusal.value.next_step
