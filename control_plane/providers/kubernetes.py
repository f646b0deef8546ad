"""The kubernetes provider: replicas are StatefulSets of one pod, download agents are Jobs, weights lie on a claim."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from control_plane.errors import SlipwayError
from control_plane.providers.base import (
    FetchSpec,
    HardwareOffer,
    ProviderUnavailable,
    ReplicaSpec,
    ReplicaState,
    ReplicaStatus,
)
from control_plane.providers.kubernetes_api import hardware, manifests
from control_plane.providers.kubernetes_api.client import ApiClash, ApiInvalid, ApiRefusal, Json, KubernetesApi
from control_plane.providers.kubernetes_api.options import BOOT, COMPLETE, NAME, OWNER, POD, ClusterOptions
from control_plane.providers.kubernetes_api.pod_log import PodLog
from control_plane.providers.kubernetes_api.state import Cluster, Pod, newest, node_trouble, noted_pod, status_of
from control_plane.settings import Settings


class _Found(NamedTuple):
    """A StatefulSet or Job of ours, where it is, and its pods."""

    path: str
    workload: Json
    pods: list[Json]

    @property
    def pod(self) -> Pod | None:
        return newest(self.pods)


class KubernetesProvider:
    """Talks to one cluster's API server, within one namespace; of nodes it only reads.

    ``exact`` is False: an API server that was cut off from etcd may answer from its cache.
    """

    name = "kubernetes"
    exact = False

    def __init__(self, api: KubernetesApi, options: ClusterOptions, instances_dir: Path) -> None:
        self._api = api
        self._options = options
        self._instances_dir = instances_dir
        self._cluster = Cluster(self._node, self._events)

    @classmethod
    def from_settings(cls, settings: Settings) -> KubernetesProvider:
        """The provider of the cluster that ``settings`` name."""
        api = KubernetesApi(settings.kubernetes_kubeconfig)
        return cls(api, ClusterOptions.from_settings(settings), settings.instances_dir)

    def offers(self) -> list[HardwareOffer]:
        """The cluster's processors, then its GPUs by product. Never raises."""
        try:
            nodes = self._api.items("/api/v1/nodes")
            try:
                pods, all_seen = self._api.items("/api/v1/pods"), True
            except ApiRefusal:  # the chart gives that right only when it is asked to
                pods, all_seen = self._api.items(self._options.pods()), False
            return hardware.offers(nodes, pods, self._options, all_seen=all_seen)
        except SlipwayError as error:
            return [hardware.unreachable(error.detail, self._options)]

    def create(self, spec: ReplicaSpec) -> ReplicaStatus:
        """Start a replica, or return the one that already has this name."""
        manifests.check(spec.name, spec.boot_token)
        stateful_set = manifests.stateful_set(spec, self._options)
        service_path = self._options.path("api/v1", "services", manifests.companion(spec.name, spec.boot_token))
        found = self.find(spec.name)
        if not _to_be_made(found):
            return found
        path = self._options.statefulsets(spec.name)
        owner = self._apply(path, stateful_set, spec.name)
        if owner is not None:
            self._api.apply(service_path, manifests.service(spec, self._options, owner))
            secret = manifests.secret(spec.name, spec.boot_token, spec.api_key, self._options, owner)
            self._complete(path, owner, secret)
        return self.find(spec.name)

    def location(self, hardware_id: str) -> str:  # noqa: ARG002 - every node of the cluster mounts the same claim
        """Which storage replicas read: the claim."""
        return f"kubernetes:{self._options.namespace}/{self._options.claim_name}"

    def fetch(self, spec: FetchSpec) -> ReplicaStatus:
        """Start the agent, or return the one that already has this name."""
        manifests.check(spec.name, spec.boot_token)
        found = self.find(spec.name)
        if not _to_be_made(found):
            return found
        if not self._options.claim:
            self._ensure_claim()
        path = self._options.jobs(spec.name)
        owner = self._apply(path, manifests.job(spec, self._options), spec.name)
        if owner is not None:
            secret = manifests.secret(spec.name, spec.boot_token, spec.token, self._options, owner)
            self._complete(path, owner, secret)
        return self.find(spec.name)

    def find(self, name: str) -> ReplicaStatus:
        """The replica of this name; ``ABSENT`` if there is none."""
        found = self._find(name)
        if found is None:
            return ReplicaStatus(name, ReplicaState.ABSENT)
        self._note_pod(found)
        return self._status(found.workload, found.pod)

    def list_owned(self) -> list[ReplicaStatus]:
        """Every replica and agent in our namespace that carries our owner tag."""
        selector = f"{OWNER}={self._options.owner}"
        by_name: dict[str, list[Json]] = {}
        for pod in self._api.items(self._options.pods(), labelSelector=selector):
            by_name.setdefault(pod["metadata"]["labels"].get(NAME, ""), []).append(pod)
        return [
            self._status(workload, newest(by_name.get(workload["metadata"]["name"], [])))
            for path in (self._options.statefulsets(), self._options.jobs())
            for workload in self._api.items(path, labelSelector=selector)
        ]

    def delete(self, name: str, *, boot_token: str | None, grace_s: float) -> None:
        """Let a replica drain, end it after ``grace_s`` seconds at the latest. Deleting what is absent is fine."""
        found = self._find(name)
        if found is None or boot_token not in {None, found.workload["metadata"]["labels"].get(BOOT)}:
            return
        with suppress(ProviderUnavailable):
            self._copy_log(name, found.pod)
        # Pods first: deleted with their owner they would get the grace of an eviction, not ours. Their owner brings no
        # other while one is going.
        for pod in map(Pod, found.pods):
            self._api.delete(self._options.pods(pod.name), pod.uid, grace_s=self._grace(pod, grace_s))
        self._api.delete(found.path, found.workload["metadata"]["uid"], propagation="Foreground")

    def _grace(self, pod: Pod, grace_s: float) -> int:
        """0 forgets a pod at once, which only a node that cannot say any more that it ended it deserves.

        Should that node come back, its kubelet ends what the API does not know.
        """
        if pod.node and not pod.ready and node_trouble(self._node(pod.node), pod.node):
            return 0
        return max(1, math.ceil(grace_s))

    def logs(self, name: str, *, tail_bytes: int) -> str:
        """The last ``tail_bytes`` of the replica's log; kept after its death, and after its deletion."""
        return self._log(name).store.tail(tail_bytes).text

    def follow_logs(self, name: str, *, offset: int) -> Iterator[tuple[int, str]]:
        """New log text from ``offset`` (bytes) on, or from that far before the end where it is negative."""
        return self._log(name).store.follow(offset)

    def _log(self, name: str) -> PodLog:
        """The log, as far as it can be copied now.

        :raises ProviderUnavailable: none of it was copied yet, and it cannot be now.
        """
        log = PodLog(self._instances_dir / name)
        try:
            found = self._find(name)
            self._copy_log(name, found.pod if found else None)
        except ProviderUnavailable:
            if log.store.end == 0:
                raise
        return log

    def _copy_log(self, name: str, pod: Pod | None) -> None:
        if pod is not None:
            PodLog(self._instances_dir / name).copy(self._api, self._options, pod)

    def _find(self, name: str) -> _Found | None:
        if not manifests.is_name(name):
            return None
        for path in (self._options.statefulsets(name), self._options.jobs(name)):
            workload = self._api.get(path)
            if workload is not None and workload["metadata"].get("labels", {}).get(OWNER) == self._options.owner:
                selector = f"{OWNER}={self._options.owner},{NAME}={name}"
                return _Found(path, workload, self._api.items(self._options.pods(), labelSelector=selector))
        return None

    def _apply(self, path: str, manifest: Json, name: str) -> Json | None:
        """The object as it then is; None where another boot's, which cannot be changed into this one's, is there."""
        try:
            return self._api.apply(path, manifest)
        except (ApiInvalid, ApiClash):
            if self._find(name) is None:
                raise
            return None

    def _complete(self, path: str, owner: Json, secret: Json) -> None:
        """The last steps of a creation: the secret, and a note that nothing is missing any more.

        The note spares us the right to read Secrets.
        """
        self._api.apply(self._options.path("api/v1", "secrets", secret["metadata"]["name"]), secret)
        # Of this very object: one of the same name may have taken its place meanwhile.
        metadata = {"annotations": {COMPLETE: "true"}, "uid": owner["metadata"]["uid"]}
        with suppress(ApiClash):
            self._api.merge(path, {"metadata": metadata})

    def _ensure_claim(self) -> None:
        path = self._options.path("api/v1", "persistentvolumeclaims", self._options.claim_name)
        if self._api.get(path) is None:
            self._api.apply(path, manifests.claim(self._options))

    def _note_pod(self, found: _Found) -> None:
        """Write down which pod this boot began with, so that the next one is told from it."""
        if noted_pod(found.workload) or found.pod is None or not found.pod.node or found.pod.going:
            return
        metadata = {
            "annotations": {POD: found.pod.uid},
            "resourceVersion": found.workload["metadata"]["resourceVersion"],
        }
        with suppress(ApiClash):  # it changed meanwhile; the next look notes it
            self._api.merge(found.path, {"metadata": metadata})

    def _status(self, workload: Json, pod: Pod | None) -> ReplicaStatus:
        return status_of(workload, pod, self._cluster, self._url)

    def _url(self, workload: Json, pod: Pod) -> str | None:
        """Where its server listens; an agent has none."""
        if workload["spec"].get("serviceName") is None:
            return None
        name = workload["metadata"]["name"]
        port = manifests.port_of(self._options, name)
        if self._options.access == "host":
            return f"http://{pod.address}:{port}" if pod.address else None
        return f"http://{workload['spec']['serviceName']}.{self._options.namespace}.svc:{port}"

    def _node(self, name: str) -> Json | None:
        return self._api.get(f"/api/v1/nodes/{name}")

    def _events(self, uid: str) -> list[Json]:
        path = self._options.path("api/v1", "events")
        return self._api.items(path, fieldSelector=f"involvedObject.uid={uid}")


def _to_be_made(found: ReplicaStatus) -> bool:
    """Whether there is none of this name, or one whose creation was interrupted."""
    return found.state is ReplicaState.ABSENT or (found.state is ReplicaState.PENDING and found.boot_token is None)
