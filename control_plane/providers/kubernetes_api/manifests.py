"""The objects that a replica and a download agent are made of.

::

    StatefulSet NAME ── owns ─┬─ Pod NAME-0            slipway-serve; weights mounted read-only
      (one replica,           ├─ Service NAME-BOOT     a name for it inside the cluster
       labels: owner, boot)   └─ Secret NAME-BOOT      the key that it demands
    Job NAME ── owns ─────────┬─ Pod                   slipway-agent; weights mounted for writing
                              └─ Secret NAME-BOOT      the token that it reports with
    PersistentVolumeClaim     the weights of all

A StatefulSet and not a Deployment: it never has two pods at once, and it is there, with its boot, while its pod is not.
Its selector contains the boot and selectors never change, so of two workers with different boots the API server
refuses the second. A boot is one pod and one run of its container: what the cluster starts again by itself is
reported as ended (``state.py``), because restarts with their backoff and their verdict are the control plane's.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Mapping

from control_plane.providers.base import FetchSpec, ProviderError, ReplicaSpec
from control_plane.providers.engine_flags import engine_flags
from control_plane.providers.kubernetes_api.client import Json
from control_plane.providers.kubernetes_api.options import BOOT, LABELS, MANAGED_BY, NAME, OWNER, ClusterOptions
from control_plane.providers.kubernetes_api.pod import (
    AUTHORITY,
    GPU_RESOURCE,
    NODE_ADDRESS,
    SECRETS,
    confined,
    literally,
    mount_weights,
    probe,
    tolerations,
)

CPU_HARDWARE = "kubernetes-cpu"
GPU_HARDWARE = "kubernetes-gpu"
#: What NVIDIA's GPU feature discovery labels nodes with.
PRODUCT_LABEL = "nvidia.com/gpu.product"

_PORT = 8000
_HOST_PORTS = range(20000, 30000)
#: The controller appends ``-<hash>`` to a StatefulSet's name in a label of at most 63 characters.
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,49}[a-z0-9])?")
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def is_name(name: str) -> bool:
    """Whether an object can have this name."""
    return _NAME.fullmatch(name) is not None


def companion(name: str, boot_token: str) -> str:
    """What the Service and the Secret of one boot are called: never the same as those of another boot."""
    return f"{name}-{hashlib.sha256(boot_token.encode()).hexdigest()[:8]}"


def host_port(name: str) -> int:
    """Where a replica listens that shares its node's network: spread, so that several fit on one node."""
    return _HOST_PORTS.start + zlib.crc32(name.encode()) % len(_HOST_PORTS)


def port_of(options: ClusterOptions, name: str) -> int:
    """Where a replica listens."""
    return host_port(name) if options.access == "host" else _PORT


def check(name: str, boot_token: str) -> None:
    """Refuse what could not become the name or a label of an object.

    :raises ProviderError: it could not.
    """
    if not is_name(name) or not _LABEL_VALUE.fullmatch(boot_token):
        raise ProviderError(f"{name!r} cannot name an object in Kubernetes", "Use a-z, 0-9 and '-', 51 at most.")


def stateful_set(spec: ReplicaSpec, options: ClusterOptions) -> Json:
    """The StatefulSet of a replica.

    :raises ProviderError: it cannot run like this.
    """
    port = port_of(options, spec.name)
    container: Json = {
        "command": ["slipway-serve"],
        "args": [literally(argument) for argument in _engine_arguments(spec, options, port)],
        "ports": [{"name": "http", "containerPort": port, "protocol": "TCP"}],
        "resources": _resources(spec, options),
        # The control plane judges a start by its progress; this hour is for when it is away.
        "startupProbe": probe("/health", port, every_s=5, failures=720),
        "livenessProbe": probe("/health", port, every_s=10, failures=6),
        "readinessProbe": probe("/ready", port, every_s=2, failures=3),
    }
    pod = confined(options, container, secret=companion(spec.name, spec.boot_token), offline=True)
    if spec.weights.commit_sha:
        mount_weights(pod, options, read_only=True)
    pod |= {
        "nodeSelector": options.node_selector | _product_selector(spec.hardware_id),
        "tolerations": tolerations(options, gpu=spec.accelerator_count > 0),
    }
    if options.access == "host":
        container["ports"][0]["hostPort"] = port
    selector = _selector(spec.name, spec.boot_token, options.owner)
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": _metadata(spec.name, options.owner, spec.name, spec.boot_token, spec.labels),
        "spec": {
            "replicas": 1,
            "serviceName": companion(spec.name, spec.boot_token),
            "selector": {"matchLabels": selector},
            "template": {"metadata": {"labels": selector | MANAGED_BY}, "spec": pod},
        },
    }


def service(spec: ReplicaSpec, options: ClusterOptions, owner: Json) -> Json:
    """A name inside the cluster for the replica. It answers before it is ready: who asks judges readiness itself."""
    port = port_of(options, spec.name)
    name = companion(spec.name, spec.boot_token)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(name, options.owner, spec.name, spec.boot_token)
        | {"ownerReferences": [_reference(owner)]},
        "spec": {
            "type": "ClusterIP",
            "publishNotReadyAddresses": True,
            "selector": _selector(spec.name, spec.boot_token, options.owner),
            "ports": [{"name": "http", "port": port, "targetPort": port, "protocol": "TCP"}],
        },
    }


def job(spec: FetchSpec, options: ClusterOptions) -> Json:
    """The Job of a download agent: one try, because the next one has a new boot."""
    container: Json = {
        "command": ["slipway-agent"],
        "args": [literally(text) for text in (f"--job-url={spec.job_url}", f"--token-file={SECRETS}/secret")],
        "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}},
    }
    pod = confined(options, container, secret=companion(spec.name, spec.boot_token), offline=False)
    mount_weights(pod, options, read_only=False)
    pod |= {
        "restartPolicy": "Never",
        "nodeSelector": dict(options.node_selector),
        "tolerations": tolerations(options, gpu=True),  # where a claim binds to one node, it may be one with GPUs
    }
    if options.agent_ca:
        container["env"].append({"name": "SLIPWAY_AGENT_CA_FILE", "value": f"{AUTHORITY}/ca.crt"})
        container["volumeMounts"].append({"name": "ca", "mountPath": AUTHORITY, "readOnly": True})
        pod["volumes"].append({"name": "ca", "configMap": {"name": options.agent_ca}})
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(spec.name, options.owner, spec.name, spec.boot_token, spec.labels),
        "spec": {
            "backoffLimit": 0,
            "template": {
                "metadata": {"labels": _selector(spec.name, spec.boot_token, options.owner) | MANAGED_BY},
                "spec": pod,
            },
        },
    }


def secret(name: str, boot_token: str, value: str, options: ClusterOptions, owner: Json) -> Json:
    """What one boot must know and nobody else; it goes with the object that owns it."""
    metadata = _metadata(companion(name, boot_token), options.owner, name, boot_token)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata | {"ownerReferences": [_reference(owner)]},
        "type": "Opaque",
        "stringData": {"secret": value},
    }


def claim(options: ClusterOptions) -> Json:
    """The volume that holds everybody's weights. Deleting instances never deletes it."""
    spec: Json = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": options.volume_size}}}
    if options.storage_class:
        spec["storageClassName"] = options.storage_class
    labels = MANAGED_BY | {OWNER: options.owner}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": options.claim_name, "labels": labels},
        "spec": spec,
    }


def _engine_arguments(spec: ReplicaSpec, options: ClusterOptions, port: int) -> list[str]:
    flags = engine_flags(
        spec,
        host=NODE_ADDRESS if options.access == "host" else "0.0.0.0",  # noqa: S104 - its pod's own network
        port=str(port),
        api_key_file=f"{SECRETS}/secret",
        device="cuda" if spec.accelerator_count else "cpu",
    )
    if model := spec.weights.bundled_in(options.bundled_models):
        return [model, *flags]
    return [spec.weights.model, f"--revision={spec.weights.commit_sha or ''}", *flags]


def _resources(spec: ReplicaSpec, options: ClusterOptions) -> Json:
    """Requests are what the scheduler plans with, limits what the kernel enforces."""
    requests = {"cpu": _cpus(spec.limits.cpus or options.cpus)}
    limits = {}
    if spec.limits.cpus is not None:
        limits["cpu"] = _cpus(spec.limits.cpus)
    needed = spec.memory_bytes if spec.accelerator_count == 0 else 0
    if spec.limits.memory_bytes is not None:
        limits["memory"] = str(spec.limits.memory_bytes)
        needed = min(needed or spec.limits.memory_bytes, spec.limits.memory_bytes)
    if needed:
        requests["memory"] = str(needed)
    if spec.accelerator_count:
        requests[GPU_RESOURCE] = limits[GPU_RESOURCE] = str(spec.accelerator_count)
    return {"requests": requests, "limits": limits}


def _cpus(count: float) -> str:
    return f"{max(1, round(count * 1000))}m"


def _product_selector(hardware_id: str) -> dict[str, str]:
    """The label of the nodes that ``hardware_id`` means: the product's name is the end of the id.

    :raises ProviderError: no such hardware.
    """
    if hardware_id in (CPU_HARDWARE, GPU_HARDWARE):
        return {}
    product = hardware_id.removeprefix(f"{GPU_HARDWARE}-")
    if product == hardware_id or not _LABEL_VALUE.fullmatch(product):
        message = f"there is no hardware {hardware_id!r} in this cluster"
        raise ProviderError(message, "Choose one that GET /hardware lists.")
    return {PRODUCT_LABEL: product}


def _selector(name: str, boot_token: str, owner: str) -> dict[str, str]:
    return {OWNER: owner, NAME: name, BOOT: boot_token}


def _metadata(name: str, owner: str, replica: str, boot_token: str, labels: Mapping[str, str] | None = None) -> Json:
    metadata: Json = {"name": name, "labels": MANAGED_BY | _selector(replica, boot_token, owner)}
    if labels is not None:
        # As an annotation: people's words need not fit the alphabet of Kubernetes' labels.
        metadata["annotations"] = {LABELS: json.dumps(dict(labels), sort_keys=True)}
    return metadata


def _reference(owner: Json) -> Json:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
