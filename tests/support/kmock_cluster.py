"""An emulated Kubernetes API over real HTTP, for what needs no kubelet: which requests are made, and what is read.

``kmock`` keeps objects; what it leaves out and the provider builds on is added here: server-side apply, immutable
selectors, label selectors, pods that stay until their kubelet has ended them. A test plays scheduler and kubelet.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp.web
import kmock
import yaml
from kmock import KubernetesEmulator
from kmock._internal.k8s import KubernetesError
from kmock._internal.rendering import Payload, Request
from typing_extensions import override

Json = dict[str, Any]

RESOURCES = (
    "v1/nodes", "v1/pods", "v1/services", "v1/secrets", "v1/events", "v1/persistentvolumeclaims",
    "apps/v1/statefulsets", "batch/v1/jobs",
)  # fmt: skip
_OWNERS = ("statefulsets", "jobs")
_MOMENT = "2026-01-01T00:00:00Z"


class Emulator(KubernetesEmulator):
    """``kmock``'s emulator with what this provider relies on."""

    def __init__(self) -> None:
        super().__init__()
        for resource in RESOURCES:
            self.resources[resource] = {}
        self.logs: dict[str, str] = {}
        #: Requests that are answered with an error: HTTP status and message by ``METHOD plural``; ``METHOD plural
        #: everywhere`` is of all namespaces.
        self.refusals: dict[str, tuple[int, str]] = {}
        self.seen: list[Request] = []
        self._numbers = itertools.count(1)

    @override
    async def _handle(self, request: Request) -> aiohttp.web.StreamResponse:
        self.seen.append(request)
        plural = request.resource.plural if request.resource else None
        asked = f"{request.method.value} {plural}"
        everywhere = None if request.namespace else self.refusals.get(f"{asked} everywhere")
        if refusal := everywhere or self.refusals.get(asked):
            return await self._render_error(KubernetesError(status=refusal[0], message=refusal[1]))
        if request.subresource == "log":
            return aiohttp.web.Response(text=self.logs.get(request.name or "", ""))
        key = (request.resource, request.namespace, request.name)
        if request.method == "PATCH":
            if refused := self._prepare_patch(request, key):
                return await self._render_error(refused)
        elif request.method == "DELETE" and key in self.objects and self._waits(request, key):
            metadata: Json = {"deletionTimestamp": _MOMENT, "deletionGracePeriodSeconds": self._grace(request)}
            self.objects[key].patch({"metadata": metadata})
            return aiohttp.web.json_response(dict(self.objects[key].raw))
        return await super()._handle(request)

    def _prepare_patch(self, request: Request, key: Any) -> KubernetesError | None:
        """Create what is applied for the first time; refuse what never changes. Each write is another version."""
        applied = "apply-patch" in request.headers.get("Content-Type", "")
        there = key in self.objects and not self.objects[key].deleted
        if applied and not there:
            metadata = {"name": request.name, "namespace": request.namespace, "creationTimestamp": _MOMENT}
            self.put(request.resource, metadata | {"uid": f"uid-{next(self._numbers)}"}, {})
        elif applied and "selector" in self.objects[key].get("spec", {}):
            before, after = self.objects[key].raw["spec"]["selector"], request.data["spec"]["selector"]
            if before != after and request.resource.plural == "statefulsets":
                return KubernetesError(status=422, message="spec.selector: field is immutable")
        if key in self.objects:
            current = self.objects[key].raw["metadata"]
            wanted = (request.data.get("metadata") or {}).get("resourceVersion")
            if wanted not in (None, current["resourceVersion"]):
                return KubernetesError(status=409, message="the object has been modified")
            request.data.setdefault("metadata", {})["resourceVersion"] = str(next(self._numbers))
        return None

    def _waits(self, request: Request, key: Any) -> bool:
        """Whether a deletion only begins now: for a kubelet, or for what the object owns."""
        if self.objects[key].deleted:
            return False
        if request.resource.plural == "pods":
            return bool(self.objects[key].raw["spec"].get("nodeName")) and self._grace(request) > 0
        foreground = (request.data or {}).get("propagationPolicy") == "Foreground"
        return foreground and request.resource.plural in _OWNERS and bool(self.pods_of(str(request.name)))

    @staticmethod
    def _grace(request: Request) -> int:
        return int((request.data or {}).get("gracePeriodSeconds", 30))

    @override
    async def _serve_list(self, request: Request) -> Payload:
        listed: Any = await super()._serve_list(request)
        for selector in filter(None, request.params.get("labelSelector", "").split(",")):
            name, _, value = selector.partition("=")
            listed["items"] = [o for o in listed["items"] if o["metadata"].get("labels", {}).get(name) == value]
        if uid := request.params.get("fieldSelector", "").partition("involvedObject.uid=")[2]:
            listed["items"] = [o for o in listed["items"] if o["involvedObject"]["uid"] == uid]
        return listed

    # What a test does: it plays the cluster's controllers, scheduler and kubelets.

    def put(self, resource: Any, metadata: Json, rest: Json) -> None:
        """Store an object as it is."""
        key = (kmock.resource(resource), metadata.get("namespace"), metadata["name"])
        self.objects[key] = {"metadata": metadata | {"resourceVersion": str(next(self._numbers))}} | rest

    def get(self, resource: str, name: str) -> Json:
        """A stored object."""
        return self.objects[kmock.resource(resource), "slipway", name].raw

    def exists(self, resource: str, name: str) -> bool:
        """Whether it is there."""
        key = (kmock.resource(resource), "slipway", name)
        return key in self.objects and not self.objects[key].deleted

    def patch(self, resource: str, name: str, patch: Json, namespace: str | None = "slipway") -> None:
        """Merge into a stored object."""
        self.objects[kmock.resource(resource), namespace, name].patch(patch)

    def pods_of(self, name: str) -> list[Json]:
        """The pods of a replica."""
        pods = [o.raw for (resource, _, _), o in self.objects.items() if resource.plural == "pods" and not o.deleted]
        return [pod for pod in pods if pod["metadata"]["labels"].get("slipway.name") == name]

    def add_node(
        self, name: str, *, labels: Json | None = None, gpus: int = 0, taints: list[Json] | None = None
    ) -> None:
        """A node that is ready."""
        given = {"cpu": "16", "memory": "64Gi", "nvidia.com/gpu": str(gpus)}
        conditions = [{"type": "Ready", "status": "True"}]
        status = {"allocatable": given, "conditions": conditions}
        self.put(
            "v1/nodes", {"name": name, "labels": labels or {}}, {"spec": {"taints": taints or []}, "status": status}
        )

    def node_falls_silent(self, name: str) -> None:
        """What the node controller writes when a kubelet stops reporting."""
        condition = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown",
                     "message": "Kubelet stopped posting node status."}  # fmt: skip
        self.patch("v1/nodes", name, {"status": {"conditions": [condition]}}, namespace=None)

    def make_pod(self, name: str, *, owner: str = "apps/v1/statefulsets", node: str | None = None) -> str:
        """What the controller of a StatefulSet or Job does; the pod's name."""
        template = self.get(owner, name)["spec"]["template"]
        uid = f"uid-{next(self._numbers)}"
        metadata = {"name": f"{name}-0", "namespace": "slipway", "uid": uid, "creationTimestamp": _MOMENT}
        spec = template["spec"] | ({"nodeName": node} if node else {})
        labels = {"labels": template["metadata"]["labels"]}
        self.put("v1/pods", metadata | labels, {"spec": spec, "status": {"phase": "Pending", "hostIP": "10.0.0.7"}})
        return f"{name}-0"

    def run(self, pod: str, *, restarts: int = 0, ended: Json | None = None, ready: bool = True) -> None:
        """The kubelet has started a pod's container; ``ended`` is how an earlier run of it ended."""
        container: Json = {"state": {"running": {}}, "restartCount": restarts, "lastState": {}}
        if ended:
            container["lastState"] = {"terminated": ended}
        conditions = [{"type": "Ready", "status": str(ready)}]
        status = {"phase": "Running", "containerStatuses": [container], "conditions": conditions}
        self.patch("v1/pods", pod, {"status": status})

    def waits(self, pod: str, reason: str, message: str = "") -> None:
        """The kubelet cannot start a pod's container yet."""
        state = {"state": {"waiting": {"reason": reason, "message": message}}, "restartCount": 0}
        self.patch("v1/pods", pod, {"status": {"containerStatuses": [state]}})

    def event(self, uid: str, reason: str, message: str, kind: str = "Warning") -> None:
        """Something is said about an object."""
        about = {"type": kind, "reason": reason, "message": message, "involvedObject": {"uid": uid}}
        metadata = {"name": f"event-{next(self._numbers)}", "namespace": "slipway"}
        self.put("v1/events", metadata, about | {"lastTimestamp": _MOMENT})

    def remove_pod(self, name: str) -> None:
        """A kubelet has ended a pod; an owner that waited for that goes too."""
        del self.objects[kmock.resource("v1/pods"), "slipway", f"{name}-0"]
        for resource in ("apps/v1/statefulsets", "batch/v1/jobs"):
            if self.exists(resource, name) and self.get(resource, name)["metadata"].get("deletionTimestamp"):
                del self.objects[kmock.resource(resource), "slipway", name]


@contextmanager
def emulated_cluster(folder: Path) -> Iterator[tuple[Emulator, Path]]:
    """Serve one on a free port; it and a kubeconfig for it."""
    emulator, loop, ready = Emulator(), asyncio.new_event_loop(), threading.Event()
    end, urls = asyncio.Event(), []

    async def serve() -> None:
        async with emulator, kmock.Server(emulator) as server:
            urls.append(str(server.url).rstrip("/"))
            ready.set()
            await end.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    try:
        assert ready.wait(20)
        yield emulator, write_kubeconfig(folder / "kubeconfig", urls[0])
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(20)
        loop.close()


def write_kubeconfig(path: Path, url: str) -> Path:
    """A kubeconfig for an API without TLS."""
    value = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "emulated", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": {"token": "a-token"}}],
        "contexts": [{"name": "emulated", "context": {"cluster": "emulated", "user": "test"}}],
        "current-context": "emulated",
    }
    path.write_text(yaml.safe_dump(value))
    return path
