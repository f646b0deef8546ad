"""What the objects of a replica say about it.

A boot is one pod and one run of its container. The cluster starts both again by itself, which must not look like the
same boot going on::

    its container ended, or was started again   ─► exited, with the exit code of the first run
    its pod is being taken away, or is another  ─► lost, in the words of the node, the pod or its events
    its pod has no node, or no container yet    ─► pending, in the words of the scheduler or the kubelet

Which pod a boot began with is noted in an annotation of the StatefulSet (or Job) as soon as it has a node.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import NamedTuple

from control_plane.providers.base import ReplicaState, ReplicaStatus
from control_plane.providers.kubernetes_api.client import Json
from control_plane.providers.kubernetes_api.options import BOOT, COMPLETE, LABELS, NAME, POD

#: An event of one of these reasons says why a pod was taken away.
_TAKING = frozenset({"Evicted", "TaintManagerEviction", "Preempted", "Preempting", "NodeNotReady", "NodeShutdown"})
#: The kubelet found a container's end but not how it ended: the node was restarted.
_UNKNOWN_END = "ContainerStatusUnknown"


class Cluster(NamedTuple):
    """What has to be asked where the objects themselves do not say enough."""

    node: Callable[[str], Json | None]
    events: Callable[[str], list[Json]]


@dataclass(frozen=True)
class Pod:
    """A pod, read."""

    raw: Json

    @property
    def uid(self) -> str:
        """Its identity: a pod of the same name that follows it has another."""
        return str(self.raw["metadata"].get("uid", ""))

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.raw["metadata"]["name"])

    @property
    def node(self) -> str | None:
        """The node that it was given to."""
        return self.raw.get("spec", {}).get("nodeName") or None

    @property
    def going(self) -> bool:
        """Whether it is being deleted."""
        return bool(self.raw["metadata"].get("deletionTimestamp"))

    @property
    def address(self) -> str | None:
        """Its node's address."""
        return self._status.get("hostIP") or None

    @property
    def over(self) -> str | None:
        """Why the kubelet gave it up as a whole ("Evicted: …"); None where it did not."""
        if self._status.get("phase") != "Failed" or not self._status.get("reason"):
            return None
        return _sentence(self._status["reason"], self._status.get("message"))

    @property
    def running(self) -> bool:
        """Whether its container runs."""
        return "running" in self._container.get("state", {})

    @property
    def ready(self) -> bool:
        """Whether the kubelet, and the node controller, hold it for ready."""
        return any(c["type"] == "Ready" and c["status"] == "True" for c in self._conditions)

    @property
    def restarts(self) -> int:
        """How often the kubelet started its container again."""
        return int(self._container.get("restartCount", 0))

    @cached_property
    def end(self) -> Json | None:
        """How its container last ended; None where it never did."""
        for key in ("state", "lastState"):
            if ended := self._container.get(key, {}).get("terminated"):
                return dict(ended)
        return {} if self.restarts else None

    @property
    def waits_for(self) -> tuple[str, str] | None:
        """Reason and message of what it waits for: the scheduler's, or its container's."""
        for condition in self._conditions:
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return condition.get("reason", ""), condition.get("message", "")
        if waiting := self._container.get("state", {}).get("waiting"):
            return waiting.get("reason", ""), waiting.get("message", "")
        return None

    @property
    def disruption(self) -> str | None:
        """Why it is being taken away, where the cluster says so in the pod itself (Kubernetes 1.26 on)."""
        for condition in self._conditions:
            if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
                return _sentence(condition.get("reason", ""), condition.get("message"))
        return None

    @property
    def _status(self) -> Json:
        return dict(self.raw.get("status") or {})

    @property
    def _conditions(self) -> list[Json]:
        return list(self._status.get("conditions") or [])

    @property
    def _container(self) -> Json:
        return dict(next(iter(self._status.get("containerStatuses") or []), {}))


def newest(pods: list[Json]) -> Pod | None:
    """The pod of a replica: where one is going and another has come, the latter."""
    ordered = sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))
    return Pod(ordered[-1]) if ordered else None


def node_trouble(node: Json | None, name: str) -> str | None:
    """Why nothing on a node can be relied on; None where it is well."""
    if node is None:
        return f"node {name} is gone"
    for condition in (node.get("status") or {}).get("conditions") or []:
        if condition["type"] == "Ready" and condition["status"] != "True":
            return f"node {name} is not ready: {_sentence(condition.get('reason', ''), condition.get('message'))}"
    return None


def noted_pod(workload: Json) -> str | None:
    """The uid of the pod that this boot began with, once it had a node."""
    return (workload["metadata"].get("annotations") or {}).get(POD)


def status_of(
    workload: Json, pod: Pod | None, cluster: Cluster, url: Callable[[Json, Pod], str | None]
) -> ReplicaStatus:
    """What a StatefulSet or Job and its pod say about the replica."""
    metadata = workload["metadata"]
    boot = metadata["labels"].get(BOOT)
    state, reason, exit_code = _judge(workload, pod, cluster)
    if state is ReplicaState.PENDING and COMPLETE not in (metadata.get("annotations") or {}):
        # A create that was cut short: as no boot's own, it is created again by whoever looks.
        boot, reason = None, "its creation was interrupted"
    return ReplicaStatus(
        name=metadata["labels"][NAME],
        state=state,
        boot_token=boot,
        url=url(workload, pod) if state is ReplicaState.RUNNING and pod else None,
        exit_code=exit_code,
        reason=reason,
        node=pod.node if pod else None,
        labels=json.loads((metadata.get("annotations") or {}).get(LABELS, "{}")),
        created_at=_time(metadata.get("creationTimestamp")),
    )


class _Verdict(NamedTuple):
    state: ReplicaState
    reason: str | None = None
    exit_code: int | None = None


def _judge(workload: Json, pod: Pod | None, cluster: Cluster) -> _Verdict:
    noted = noted_pod(workload)
    if workload["metadata"].get("deletionTimestamp"):
        return _Verdict(ReplicaState.RUNNING if pod and pod.node else ReplicaState.EXITED, "it is being deleted")
    if noted and (pod is None or pod.uid != noted):
        return _Verdict(ReplicaState.LOST, _taking(cluster.events(noted)) or "its pod was deleted from outside")
    if pod is None:
        return _Verdict(ReplicaState.PENDING, _warning(cluster, workload) or "waiting for its pod to be created")
    if pod.over or (pod.going and pod.node):
        return _Verdict(ReplicaState.LOST, pod.over or _why_taken(pod, cluster))
    return _judge_container(pod, cluster)


def _judge_container(pod: Pod, cluster: Cluster) -> _Verdict:
    if pod.end is not None:
        return _ended(pod.end)
    if not pod.running:
        return _Verdict(ReplicaState.PENDING, _waiting(pod, cluster))
    if pod.ready or pod.node is None:
        return _Verdict(ReplicaState.RUNNING)
    node = cluster.node(pod.node)  # a silent node is not lost yet: its pods are, once the cluster takes them away
    return _Verdict(ReplicaState.LOST if node is None else ReplicaState.RUNNING, node_trouble(node, pod.node))


def _ended(end: Json) -> _Verdict:
    reason, code = end.get("reason", ""), end.get("exitCode")
    if reason == _UNKNOWN_END:
        return _Verdict(ReplicaState.LOST, "its node was restarted")
    if code is not None and code > 128:
        code = 128 - code  # a signal's number, negative as subprocess has it
    words = "it needed more memory than its limit" if reason == "OOMKilled" else _sentence(reason, end.get("message"))
    return _Verdict(ReplicaState.EXITED, words or None, code)


def _why_taken(pod: Pod, cluster: Cluster) -> str:
    trouble = node_trouble(cluster.node(pod.node), pod.node) if pod.node else None
    return trouble or pod.disruption or _taking(cluster.events(pod.uid)) or "its pod was deleted from outside"


def _waiting(pod: Pod, cluster: Cluster) -> str:
    reason, message = pod.waits_for or ("", "")
    if not message and (warning := _warning(cluster, pod.raw)):
        return warning
    if reason in ("", "ContainerCreating", "PodInitializing"):
        return f"node {pod.node} prepares its container (image, volumes)" if pod.node else "waiting for the scheduler"
    return _sentence(reason, message) if reason != "Unschedulable" else message


def _warning(cluster: Cluster, about: Json) -> str | None:
    events = [event for event in cluster.events(about["metadata"].get("uid", "")) if event.get("type") == "Warning"]
    return _words(events)


def _taking(events: list[Json]) -> str | None:
    return _words([event for event in events if event.get("reason") in _TAKING])


def _words(events: list[Json]) -> str | None:
    latest = sorted(events, key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or ""))[-1:]
    return _sentence(latest[0].get("reason", ""), latest[0].get("message")) if latest else None


def _sentence(reason: str, message: str | None) -> str:
    words = " ".join((message or "").split())[:400]
    return f"{reason}: {words}" if reason and words else words or reason


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None
